"""The cache alone, and decoding with it: for every way of cutting a prompt in two the result is that of one pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.cache import FIRST_CAPACITY, KVCache, Past
from qwenaudio_np.config import TextConfig, parse_config
from qwenaudio_np.decoder import decode, ntk_alpha
from tests import naive
from tests.kernel_parts import random
from tests.make_checkpoint import TEXT, distance, make_checkpoint, open_model

GOLDEN = Path(__file__).resolve().parent / "golden"
LENGTH = 70  # past the seq_length of 64 of the one checkpoint


def small(**fields: Any) -> TextConfig:
    """2 layers, 2 heads of width 12."""
    return parse_config({**TEXT, **fields}).text


def rows(count: int, start: int = 0, dtype: type = np.float32) -> np.ndarray:
    """[2, count, 12], every value telling head, position and place."""
    head, position, place = np.ogrid[0:2, start : start + count, 0:12]
    return (head * 1e4 + position + place / 16).astype(dtype)


# ---- the object


def test_a_new_cache_is_empty() -> None:
    cache = KVCache(small())
    assert (cache.length, cache.ntk_alpha, cache.nbytes, cache.dtype) == (0, 1.0, 0, np.dtype(np.float32))
    assert [array.shape for array in cache.view(1)] == [(2, 0, 12), (2, 0, 12)]


def test_append_returns_everything_so_far() -> None:
    cache = KVCache(small())
    for start, count in ((0, 3), (3, 1), (4, 2)):
        for layer in range(2):
            keys, values = cache.append(layer, rows(count, start) + layer, -rows(count, start))
            assert np.array_equal(keys, rows(start + count) + layer) and np.array_equal(values, -rows(start + count))
        assert cache.length == start, "length moves on only once all layers are written"
        cache.advance(count)
    assert np.array_equal(cache.view(1)[0], rows(6) + 1)


@pytest.mark.parametrize("step", [1, 7, 100, FIRST_CAPACITY, FIRST_CAPACITY + 1, 599])
def test_growing_keeps_what_was_there(step: int) -> None:
    """600 positions, through every doubling of the capacity (256, 512, then the limit of 600)."""
    cache = KVCache(small(max_position_embeddings=600))
    while cache.length < 600:
        count = min(step, 600 - cache.length)
        for layer in range(2):
            cache.append(layer, rows(count, cache.length) + layer, -rows(count, cache.length) - layer)
        cache.advance(count)
    for layer in range(2):
        keys, values = cache.view(layer)
        assert np.array_equal(keys, rows(600) + layer) and np.array_equal(values, -rows(600) - layer)


def test_capacity_doubles_up_to_the_limit() -> None:
    cache = KVCache(small(max_position_embeddings=600))
    bytes_of_a_position = 2 * 2 * 2 * 12 * 4  # keys and values, layers, heads, width, float32
    seen = []
    for position in range(600):
        for layer in range(2):
            cache.append(layer, rows(1, position), rows(1, position))
        cache.advance(1)
        seen.append(cache.nbytes // bytes_of_a_position)
        assert cache.nbytes % bytes_of_a_position == 0
    assert FIRST_CAPACITY == 256
    assert sorted(set(seen)) == [256, 512, 600]
    assert [seen.index(capacity) for capacity in (256, 512, 600)] == [0, 256, 512]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept_and_bytes_are_counted(dtype: type) -> None:
    cache = KVCache(small(), dtype)
    keys, values = cache.append(0, rows(5, dtype=np.float64), rows(5, dtype=np.float64))
    assert keys.dtype == values.dtype == cache.dtype == dtype
    assert cache.nbytes == 2 * 2 * FIRST_CAPACITY * 12 * np.dtype(dtype).itemsize, "only the first layer has taken memory"


def nearest_bfloat16(value: float) -> float:
    """By exact arithmetic: of the numbers with 8 bits of fraction around it the nearest, the even one of two."""
    if value == 0:
        return value
    unit = 2.0 ** (math.frexp(value)[1] - 8)
    return round(value / unit) * unit  # Python's round takes the even one


def test_bfloat16_rounds_and_takes_half() -> None:
    """600 positions, growing twice; 1 + 2^-8 and 1 + 3 * 2^-8 lie between two neighbours."""
    cache, full = KVCache(small(max_position_embeddings=600), np.uint16), KVCache(small(max_position_embeddings=600))
    k, v = random(2, 600, 12), random(2, 600, 12, seed=1)
    k[0, 0, :2] = 1 + 2**-8, 1 + 3 * 2**-8
    for start in range(0, 600, 60):
        for layer in range(2):
            for one in (cache, full):
                keys, values = one.append(layer, k[:, start : start + 60], v[:, start : start + 60])
        cache.advance(60)
        full.advance(60)
    keys, values = cache.view(1)
    assert keys.dtype == values.dtype == np.uint16 and 2 * cache.nbytes == full.nbytes
    for given, kept in ((k, keys), (v, values)):
        assert naive.wide(kept).ravel().tolist() == [nearest_bfloat16(value) for value in given.ravel().tolist()]


def test_float64_becomes_bfloat16_in_one_rounding() -> None:
    """1 + 2^-8 + 2^-40 is above the middle of its neighbours; as a float32 it would be the middle, and then go down to 1."""
    k = random(2, 300, 12).astype(np.float64) / 3
    k[0, 0, :4] = 1 + 2**-8 + 2**-40, -1 - 2**-8 - 2**-40, 1 + 3 * 2**-8 - 2**-40, 1 + 2**-8
    kept, _ = KVCache(small(max_position_embeddings=300), np.uint16).append(0, k, k)
    assert naive.wide(kept).ravel().tolist() == [nearest_bfloat16(value) for value in k.ravel().tolist()]


def test_layers_do_not_share_memory() -> None:
    cache = KVCache(small())
    arrays = [array for layer in range(2) for array in cache.append(layer, rows(4), rows(4))]
    for i, one in enumerate(arrays):
        assert not any(np.shares_memory(one, other) for other in arrays[i + 1 :])


def test_append_copies_what_it_is_given() -> None:
    cache, given = KVCache(small()), rows(3)
    keys, _ = cache.append(0, given, given)
    given[:] = -1
    assert np.array_equal(keys, rows(3))


def test_truncate_forgets_the_end() -> None:
    cache = KVCache(small())
    cache.append(0, rows(9), rows(9))
    cache.advance(9)
    cache.truncate(20)
    assert cache.length == 9, "longer than it is: nothing to forget"
    cache.truncate(4)
    assert cache.length == 4 and np.array_equal(cache.view(0)[0], rows(4))
    keys, _ = cache.append(0, -rows(2), rows(2))
    assert np.array_equal(keys, np.concatenate([rows(4), -rows(2)], axis=1))
    cache.truncate(0)
    assert cache.length == 0 and cache.view(0)[0].shape == (2, 0, 12)


# ---- decoding with it


@pytest.fixture(params=["tiny", "short_context_bf16"])
def folder(request: pytest.FixtureRequest, golden: Path) -> Path:
    return golden / request.param / "checkpoint"


def words(count: int) -> list[int]:
    return [(37 * i + i * i) % 600 for i in range(count)]


def started(model: Any, alpha_of: int) -> KVCache:
    """An empty cache that carries the alpha of a prompt of `alpha_of` positions: a piece alone would choose its own."""
    cache = KVCache(model.config.text, model.dtype)
    cache.ntk_alpha = ntk_alpha(alpha_of, model.config.text)
    return cache


@pytest.mark.parametrize(
    ("dtype", "tolerance", "splits"), [(np.float64, 1e-12, range(1, LENGTH)), (np.float32, 2e-5, (1, 32, 63, 64, 65, 69))]
)
def test_every_split_in_two_equals_one_pass(folder: Path, ops: Any, dtype: type, tolerance: float, splits: Sequence[int]) -> None:
    model = open_model(folder, ops, dtype)
    x = model.embed(words(LENGTH))
    whole, full = model.prefill(x)
    for split in splits:
        cache = started(model, LENGTH)
        pieces = [decode(part, cache, model.weights, model.config.text, ops) for part in (x[:split], x[split:])]
        assert distance(np.concatenate(pieces), whole) < tolerance, f"split at {split}"
        assert cache.length == full.length == LENGTH
    for layer in range(model.config.text.num_hidden_layers):
        for one, other in zip(cache.view(layer), full.view(layer), strict=True):
            assert distance(one, other) < tolerance


def test_step_by_step_equals_one_pass(folder: Path, ops: Any) -> None:
    """From the first token on, across seq_length; then truncated and continued in one piece."""
    model = open_model(folder, ops)
    ids = words(LENGTH)
    whole, _ = model.prefill(model.embed(ids))
    cache = started(model, LENGTH)
    logits = np.array([model.step(token, cache) for token in ids])
    assert distance(logits, model.logits(whole)) < 1e-12
    cache.truncate(30)
    rest = decode(model.embed(ids)[30:], cache, model.weights, model.config.text, ops)
    assert distance(rest, whole[30:]) < 1e-12


@pytest.mark.parametrize("shared", [0, 20])
def test_a_prefill_takes_the_cache_of_the_past_over(golden: Path, ops: Any, shared: int) -> None:
    """Also where it has nothing in common with it, or another alpha: one cache at a time."""
    model = open_model(golden / "short_context_bf16" / "checkpoint", ops)
    before = model.embed(words(60))
    for after in (model.embed([*words(60)[:shared], *words(90)[60:90]]), model.embed([*words(60)[:shared], *words(170)[60:]])):
        _, cache = model.prefill(before)
        hidden, taken = model.prefill(after, past=Past(before, cache))
        whole, _ = model.prefill(after)
        assert taken is cache and taken.length == len(after) and taken.ntk_alpha == ntk_alpha(len(after), model.config.text)
        assert distance(hidden, whole[-len(hidden) :]) < 1e-12


def test_steps_keep_the_alpha_of_the_prefill(golden: Path, ops: Any) -> None:
    """60 + 10 positions equal one pass of 70 with the alpha of 60, and not the pass of 70 with its own."""
    model = open_model(golden / "short_context_bf16" / "checkpoint", ops)
    ids = words(LENGTH)
    _, cache = model.prefill(model.embed(ids[:60]))
    logits = np.array([model.step(token, cache) for token in ids[60:]])
    assert cache.ntk_alpha == 1.0
    same = decode(model.embed(ids), started(model, 60), model.weights, model.config.text, ops)
    other = decode(model.embed(ids), started(model, 70), model.weights, model.config.text, ops)
    assert distance(logits, model.logits(same)[60:]) < 1e-12
    assert distance(logits, model.logits(other)[60:]) > 0.1


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-2)])
def test_every_split_equals_one_pass_in_bfloat16(folder: Path, ops: Any, dtype: type, tolerance: float) -> None:
    """Float32 sums differ in their last bits from split to split, which now and then rounds a key the other way: by 2^-8 of itself."""
    model = open_model(folder, ops, dtype)
    x = model.embed(words(LENGTH))
    for split in (1, 33, 69):
        cache = KVCache(model.config.text, np.uint16)
        cache.ntk_alpha = ntk_alpha(LENGTH, model.config.text)
        pieces = [decode(part, cache, model.weights, model.config.text, ops) for part in (x[:split], x[split:])]
        if split == 1:
            whole = np.concatenate(pieces)
        assert distance(np.concatenate(pieces), whole) < tolerance
    exact, _ = model.prefill(x)
    assert 1e-4 < distance(whole, exact) < 0.1, "what the rounding costs"


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_decoding_across_capacity_boundaries(tmp_path: Path, ops: Any, dtype: type, tolerance: float) -> None:
    model = open_model(make_checkpoint(tmp_path, num_hidden_layers=1), ops, dtype)
    x = model.embed([i % 256 for i in range(520)])
    whole, _ = model.prefill(x)
    for edges in ([0, 255, 256, 257, 511, 512, 513, 520], [0, 257, 520]):
        cache = started(model, 520)
        pieces = [decode(x[a:b], cache, model.weights, model.config.text, ops) for a, b in itertools.pairwise(edges)]
        assert distance(np.concatenate(pieces), whole) < tolerance


def test_two_caches_do_not_disturb_each_other(folder: Path, ops: Any) -> None:
    model = open_model(folder, ops, np.float32)
    _, first = model.prefill(model.embed(words(20)))
    before = [array.copy() for array in first.view(0)]
    _, second = model.prefill(model.embed(words(30)[::-1]))
    model.step(5, second)
    assert first.length == 20
    assert all(np.array_equal(one, other) for one, other in zip(first.view(0), before, strict=True))
