"""Every operation, over both backends and both number types, against slow float64 twins and against values worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.checking import BOTH_FLOATS, STORED, check, random, same, stored

pytestmark = BOTH_FLOATS

# --- linear -----------------------------------------------------------------------------------------------------------------

# rows, in, out: each number around what kernels work in (4, 6, 8, 12, 16, 128 and 256 at a time)
SIZES = [
    (1, 1, 1), (1, 15, 3), (1, 16, 4), (1, 17, 5), (1, 300, 33), (2, 33, 17), (3, 7, 2), (8, 31, 9),
    (9, 1, 1), (9, 15, 16), (12, 16, 15), (13, 17, 33), (15, 8, 130), (16, 257, 17), (17, 256, 16), (33, 40, 129),
]  # fmt: skip


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize(("rows", "width", "outs"), SIZES)
def test_linear(ops: Any, dtype: Any, kind: str, rows: int, width: int, outs: int) -> None:
    weight = stored(kind, outs, width)
    if kind == "float64" and dtype == np.float32:
        weight = weight.astype(np.float32).astype(np.float64)  # rounding a float64 weight is not this test's subject
    check(ops, "linear", random(dtype, rows, width), weight)
    check(ops, "linear", random(dtype, rows, width), weight, stored("bfloat16", outs))


def test_linear_worked_by_hand(ops: Any, dtype: Any) -> None:
    x = np.array([[1, 2, 3], [0, -1, 0.5]], dtype)
    weight = np.array([[1, 0, 0], [1, 1, 1]], np.float16)
    same(ops.linear(x, weight, np.array([10, 20], np.float32)), [[11, 26], [10, 19.5]], dtype)
    bfloat16 = np.array([[0x3F80, 0xBF80, 0x4000]], np.uint16)  # 1, -1, 2
    same(ops.linear(x, bfloat16), [[1 - 2 + 6], [1 + 1]], dtype)


@pytest.mark.parametrize("rows", [1, 9])
def test_linear_takes_any_view(ops: Any, dtype: Any, rows: int) -> None:
    weight, x = stored("bfloat16", 34, 40), random(dtype, 2 * rows, 80)
    for view in (x[::2, ::2], x.T[:40].T[:rows], x[rows - 1 :: -1, 40:]):
        check(ops, "linear", view, weight[::2])
        check(ops, "linear", view, weight[:, ::-1])
    unaligned = np.frombuffer(b"\0" + weight.tobytes(), np.uint8)[1:].view(np.uint16).reshape(weight.shape)
    check(ops, "linear", x[:rows, :40], unaligned)


@pytest.mark.parametrize("rows", [1, 9])
def test_linear_passes_nan_and_infinity_on_and_nowhere_else(ops: Any, dtype: Any, rows: int) -> None:
    x, weight = np.ones((rows, 20), dtype), np.ones((5, 20), np.float32)
    x[0, 19], weight[3, 0] = np.inf, np.nan
    result = ops.linear(x, weight)
    assert np.isnan(result[:, 3]).all()
    assert np.isposinf(np.delete(result[0], 3)).all()
    assert (np.delete(result[1:], 3, axis=1) == 20).all()


@pytest.mark.parametrize(("rows", "width", "outs"), [(0, 4, 3), (2, 0, 3), (2, 4, 0)])
def test_linear_of_nothing(ops: Any, dtype: Any, rows: int, width: int, outs: int) -> None:
    result = ops.linear(np.ones((rows, width), dtype), np.ones((outs, width), np.float32), np.ones(outs, np.float32))
    same(result, np.ones((rows, outs)) * (1 + width), dtype)


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_linears_are_linear_of_each(ops: Any, dtype: Any, rows: int) -> None:
    x, bias = random(dtype, rows, 40), stored("bfloat16", 17)
    products = [(stored("bfloat16", 17, 40), bias), (stored("bfloat16", 33, 40, seed=2), None), (stored("float16", 5, 40), None)]
    for one, (weight, b) in zip(ops.linears(x, *products), products, strict=True):
        check(ops, "linear", x, weight, b)
        assert one.dtype == dtype and one.tobytes() == ops.linear(x, weight, b).tobytes()


# --- embedding, convolution, pooling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORED)
def test_embedding(ops: Any, dtype: Any, kind: str) -> None:
    table = stored(kind, 5, 7)
    if kind == "float64":
        table = table.astype(dtype)
    for ids in ([3, 0, 3], []):
        check(ops, "embedding", table, np.array(ids, np.intp), dtype=dtype)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "frames", "outs"), [(1, 1, 1), (2, 2, 3), (3, 17, 16), (5, 33, 18)])
def test_conv1d(ops: Any, dtype: Any, stride: int, channels: int, frames: int, outs: int) -> None:
    check(ops, "conv1d", random(dtype, channels, frames), stored("bfloat16", outs, channels, 3), stored("float32", outs), stride)


def test_conv1d_worked_by_hand(ops: Any, dtype: Any) -> None:
    x, weight = np.array([[1, 2, 3, 4]], dtype), np.array([[[100, 10, 1]]], np.float32)
    same(ops.conv1d(x, weight, np.array([0.5], np.float32), 1), [[12.5, 123.5, 234.5, 340.5]], dtype)
    same(ops.conv1d(x, weight, np.array([0.5], np.float32), 2), [[12.5, 234.5]], dtype)


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_average_pool(ops: Any, dtype: Any, length: int) -> None:
    check(ops, "average_pool", random(dtype, length, 3))


def test_average_pool_worked_by_hand(ops: Any, dtype: Any) -> None:
    same(ops.average_pool(np.array([[1, 10], [3, 20], [100, 100]], dtype)), [[2, 15]], dtype)


# --- activations --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (15, 17), (3, 5, 2)])
def test_gelu(ops: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    check(ops, "gelu", 3 * random(dtype, *shape))
    check(ops, "gelu", random(dtype, *shape).T)


def test_gelu_over_its_whole_range(ops: Any, dtype: Any) -> None:
    check(ops, "gelu", np.linspace(-12, 12, 999).astype(dtype))


def test_gelu_worked_by_hand(ops: Any, dtype: Any) -> None:
    # Phi(1) = 0.8413447460685429, Phi(-1) = 1 - Phi(1); the tanh form gives 0.8411919906 instead.
    x = np.array([0, 1, -1, np.inf, np.nan, -np.inf], dtype)
    same(ops.gelu(x), [0, 0.8413447460685429, -0.15865525393145707, np.inf, np.nan, np.nan], dtype)


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (15, 17)])
def test_gated_silu(ops: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    check(ops, "gated_silu", random(dtype, *shape), 5 * random(dtype, *shape, seed=2))
    check(ops, "gated_silu", random(dtype, *shape)[:, ::-1], random(dtype, *shape[::-1]).T)


def test_gated_silu_worked_by_hand(ops: Any, dtype: Any) -> None:
    value = np.array([[2, 2, 2, 2, 1, 1, 1]], dtype)
    gate = np.array([[0, math.log(3), -math.log(3), 1000, np.inf, np.nan, -np.inf]], dtype)
    same(ops.gated_silu(value, gate), [[0, 1.5 * math.log(3), -0.5 * math.log(3), 2000, np.inf, np.nan, np.nan]], dtype)
    assert ops.gated_silu(value, np.full_like(gate, -1000))[0, 0] == 0


# --- norms --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "width"), [(0, 3), (1, 1), (2, 15), (3, 16), (33, 17), (35, 50)])
def test_norms(ops: Any, dtype: Any, length: int, width: int) -> None:
    x = random(dtype, length, width)
    for kind in STORED[2:]:
        check(ops, "layer_norm", x, stored(kind, width), stored(kind, width, seed=5))
        check(ops, "rms_norm", x, stored(kind, width), 1e-6)
    check(ops, "layer_norm", random(dtype, width, length).T, stored("float32", width), stored("float32", width, seed=5), eps=0.5)
    check(ops, "rms_norm", random(dtype, length, 2 * width)[:, ::2], stored("float32", width), 0.5)


def test_norms_worked_by_hand(ops: Any, dtype: Any) -> None:
    x = np.array([[1, 3], [-3, 4]], dtype)
    weight, bias = np.array([2, 1], np.float32), np.array([10, 20], np.float32)
    same(ops.layer_norm(x, weight, bias, 0.0), [[8, 21], [8, 21]], dtype)
    same(ops.rms_norm(x, weight, 0.0), [[2 / math.sqrt(5), 3 / math.sqrt(5)], [-6 / math.sqrt(12.5), 4 / math.sqrt(12.5)]], dtype)


def test_layer_norm_far_from_zero(ops: Any, dtype: Any) -> None:
    # The mean of squares minus the square of the mean would lose every digit here.
    check(ops, "layer_norm", (1000 + random(np.float64, 2, 40)).astype(dtype), stored("float32", 40), stored("float32", 40, seed=5))


def test_norms_keep_bad_rows_apart(ops: Any, dtype: Any) -> None:
    x = random(dtype, 3, 20)
    x[1, 7] = np.nan
    ones = np.ones(20, np.float32)
    for result in (ops.layer_norm(x, ones, ones), ops.rms_norm(x, ones, 1e-6)):
        assert np.isnan(result[1]).all()
        assert np.isfinite(result[[0, 2]]).all()


# --- rotary -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotary_dim", [2, 6, 8])
def test_rotary(ops: Any, dtype: Any, rotary_dim: int) -> None:
    angles = random(np.float64, 5, rotary_dim)
    check(ops, "rotary", random(dtype, 3, 5, 8), np.cos(angles).astype(dtype), np.sin(angles).astype(dtype))


def test_rotary_worked_by_hand(ops: Any, dtype: Any) -> None:
    x = np.array([[[1, 2, 3, 4, 5]]], dtype)  # a quarter turn takes (1, 3) to (-3, 1) and (2, 4) to (-4, 2); 5 stays
    same(ops.rotary(x, np.zeros((1, 4), dtype), np.ones((1, 4), dtype)), [[[-3, -4, 1, 2, 5]]], dtype)
