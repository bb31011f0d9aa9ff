"""Attention over both backends and both number types: sizes, masks, views, and what NaN and infinity may touch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests import naive
from tests.checking import BOTH_FLOATS, TINY, check, random, same, stored

pytestmark = BOTH_FLOATS

# heads, queries, keys, head_dim
SHAPES = [
    (1, 1, 1, 1), (2, 1, 33, 16), (2, 2, 17, 5), (1, 3, 3, 17), (3, 4, 4, 8), (2, 7, 40, 15),
    (1, 13, 15, 33), (1, 17, 300, 16), (1, 200, 203, 2),
]  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention(ops: Any, dtype: Any, shape: tuple[int, int, int, int], causal: bool) -> None:
    heads, length, total, head_dim = shape
    k, v = (random(dtype, heads, total, head_dim, seed=seed) for seed in (1, 2))
    check(ops, "attention", random(dtype, heads, length, head_dim), k, v, causal=causal)


@pytest.mark.parametrize("length", [1, 9])
def test_attention_takes_views_of_a_cache_and_of_heads_side_by_side(ops: Any, dtype: Any, length: int) -> None:
    cache = random(dtype, 2, 3, 40, 12)  # [keys or values, heads, capacity, head_dim]
    q = random(dtype, length, 3, 12).transpose(1, 0, 2)
    check(ops, "attention", q, cache[0, :, :21], cache[1, :, :21], causal=True)
    check(ops, "attention", q, cache[0, :, 20::-1], cache[1, :, 1:22], causal=False)
    check(ops, "attention", random(dtype, 12, length, 3).T, random(dtype, 12, 21, 3).T, cache[1, :, :21], causal=False)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (2, 1, 300, 40), (2, 9, 300, 40)])
def test_attention_over_bfloat16(ops: Any, dtype: Any, shape: tuple[int, int, int, int], causal: bool) -> None:
    """Keys and values as a cache of half the size holds them; the twin gets what their bits stand for."""
    heads, length, total, head_dim = shape
    cache = stored("bfloat16", 2, heads, total + 3, head_dim)
    k, v = cache[:, :, :total]
    q = random(dtype, heads, length, head_dim)
    expected, off = naive.attention(q.astype(np.float64), naive.wide(k), naive.wide(v), causal)
    result = ops.attention(q, k, v, causal)
    assert result.dtype == dtype
    assert (abs(result - expected) <= off * float(np.finfo(dtype).eps) + TINY).all()


@pytest.mark.parametrize("length", [1, 9])
def test_attention_worked_by_hand(ops: Any, dtype: Any, length: int) -> None:
    q = np.full((1, length, 4), 1, dtype)
    k = np.full((1, 12, 4), -100, dtype)
    k[0, :2] = [[math.log(2) / 2] * 4, [0] * 4]  # scores log 2 and 0: weights 2/3 and 1/3; all others e^-200
    v = np.zeros((1, 12, 4), dtype)
    v[0, :2] = [[3, 0, 6, 9], [0, 3, 3, 0]]
    same(ops.attention(q, k, v, False), [[2, 1, 5, 6]] * length, dtype)


def test_attention_of_large_scores_does_not_overflow(ops: Any, dtype: Any) -> None:
    for length in (1, 9):
        q, k = np.full((1, length, 4), 1000, dtype), np.full((1, 300, 4), 1000, dtype)
        k[0, -1] = 1001  # the maximum comes last: all that was summed before counts for nothing
        v = random(dtype, 1, 300, 4)
        same(ops.attention(q, k, v, False), np.repeat(v[0, -1:], length, 0), dtype)


@pytest.mark.parametrize("length", [1, 9])
def test_attention_overflows_where_the_sum_does(ops: Any, dtype: Any, length: int) -> None:
    """The factor 1 / sqrt(head_dim) comes after the sum of the products, which it cannot save."""
    size = math.sqrt(float(np.finfo(dtype).max))
    q, k, v = np.full((1, length, 16), size, dtype), np.full((1, 20, 16), size / 8, dtype), np.ones((1, 20, 16), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        assert np.isnan(ops.attention(q, k, v, False)).all()  # 16 / 8 of the largest number; its half would be one
    same(ops.attention(q, k / 4, v, False), np.ones((length, 16)), dtype)


@pytest.mark.parametrize("total", [20, 300])
@pytest.mark.parametrize("length", [2, 9])
def test_attention_keeps_nan_and_infinity_in_the_rows_that_see_them(ops: Any, dtype: Any, length: int, total: int) -> None:
    for poison in (np.nan, np.inf):
        q, k, v = (abs(random(dtype, 1, n, 8)) for n in (length, total, total))
        k[0, -2] = poison  # the last two queries see it; inf - inf in the softmax is NaN as well
        result = ops.attention(q, k, v, True)
        assert np.isnan(result[-2:]).all()
        assert np.isfinite(result[:-2]).all()
        k[0, -2] = -poison  # a score of -inf has no weight
        assert np.isnan(ops.attention(q, k, v, True)[-2:]).all() == np.isnan(poison)


@pytest.mark.parametrize("length", [2, 9])
def test_attention_without_any_weight_is_nan(ops: Any, dtype: Any, length: int) -> None:
    q, k, v = np.ones((1, length, 8), dtype), np.ones((1, 300, 8), dtype), np.ones((1, 300, 8), dtype)
    k[0, :280] = -np.inf  # more than a block of keys: what comes after it must still count
    same(ops.attention(q, k, v, False), np.ones((length, 8)), dtype)
    k[:] = -np.inf
    assert np.isnan(ops.attention(q, k, v, False)).all()
    more_queries_than_keys = ops.attention(np.ones((1, length, 8), dtype), v[:, : length - 1], v[:, : length - 1], True)
    assert np.isnan(more_queries_than_keys[0]).all()
    same(more_queries_than_keys[1:], np.ones((length - 1, 8)), dtype)


def test_attention_of_nothing(ops: Any, dtype: Any) -> None:
    some, none = np.ones((2, 3, 4), dtype), np.ones((2, 0, 4), dtype)
    assert ops.attention(none, some, some, False).shape == (0, 8)
    same(ops.attention(some, none, none, False), np.zeros((3, 8)), dtype)
