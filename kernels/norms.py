"""LayerNorm and RMSNorm in float32: each row is read once from memory and written once."""

from __future__ import annotations

from typing import Any

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.ops import Array, Weight

from . import parallel
from .arrays import Stored, empty, readable, require_shape
from .compile_cache import inlined
from .simd import add, add_dot, lane_sum, load, zeros
from .simd_python import LANES

ROWS = 32  # per piece of work


def layer_norm(x: Array, weight: Weight, bias: Weight, eps: float = 1e-5) -> Array:
    """x [length, width] -> (x - mean) / sqrt(variance + eps) * weight + bias, over the width. ValueError for shapes that do not fit."""
    if x.dtype != np.float32 or not x.size:
        return ops.layer_norm(x, weight, bias, eps)  # float64 is for truth, not for speed; of nothing there is nothing to gain
    w, b = _of_width("weight", weight, x), _of_width("bias", bias, x)
    return _by_rows(_layer_norm, x, w, b, np.float32(eps))


def rms_norm(x: Array, weight: Weight, eps: float) -> Array:
    """x [length, hidden] -> x / sqrt(mean(x^2) + eps) * weight; the product with the weight comes last, as in ops.rms_norm.

    Raises ValueError for a weight of another width.
    """
    if x.dtype != np.float32 or not x.size:
        return ops.rms_norm(x, weight, eps)  # as above
    w = _of_width("weight", weight, x)
    return _by_rows(_rms_norm, x, w, np.float32(eps))


def _of_width(name: str, array: Weight, x: Array) -> Stored:
    """One value per column of x, as float32."""
    require_shape(name, array, x.shape[-1:])
    return readable(ops.widen(array, x.dtype))


def _by_rows(function: Any, x: Array, *constants: Any) -> Array:
    y = empty(*x.shape)
    length = x.size // x.shape[-1]
    parallel.run(function, (readable(x), *constants, y.reshape(-1)), -(-length // ROWS), min(length, ROWS) * x.shape[-1])
    return y


@inlined
def _sum(x: Array, at: int, width: int) -> float:
    sums, whole = zeros(1), width // LANES * LANES
    for k in range(at, at + whole, LANES):
        sums = add(sums, load(x, k))
    total = lane_sum(sums)
    for k in range(at + whole, at + width):
        total += x[k]
    return total


@inlined
def _sum_of_squares(x: Array, at: int, width: int) -> float:
    sums, whole = zeros(1), width // LANES * LANES
    for k in range(at, at + whole, LANES):
        sums = add_dot(sums, x, k, x, k, 0)
    total = lane_sum(sums)
    for k in range(at + whole, at + width):
        total += x[k] * x[k]
    return total


@parallel.shared
def _layer_norm(piece: int, x: Array, weight: Array, bias: Array, eps: float, y: Array) -> None:
    width = len(weight)
    one, length = np.float32(1), len(x) // width
    for row in range(piece * ROWS, min((piece + 1) * ROWS, length)):
        at = row * width
        mean = _sum(x, at, width) / np.float32(width)
        for k in range(width):
            y[at + k] = x[at + k] - mean
        # From the centred values: the mean of squares minus the square of the mean would cancel.
        scale = one / np.sqrt(_sum_of_squares(y, at, width) / np.float32(width) + eps)
        for k in range(width):
            y[at + k] = y[at + k] * scale * weight[k] + bias[k]


@parallel.shared
def _rms_norm(piece: int, x: Array, weight: Array, eps: float, y: Array) -> None:
    width = len(weight)
    one, length = np.float32(1), len(x) // width
    for row in range(piece * ROWS, min((piece + 1) * ROWS, length)):
        at = row * width
        scale = one / np.sqrt(_sum_of_squares(x, at, width) / np.float32(width) + eps)
        for k in range(width):
            y[at + k] = x[at + k] * scale * weight[k]
