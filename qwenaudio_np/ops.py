"""THE definition of every operation of the model, in a few obvious lines each.

Pure functions without state. A float array goes in (float32 or float64) and the same type comes out: float64 in makes
this file the truth that tolerances are measured against. `kernels/` has fast twins with the same names and signatures.

A *weight* is an array as stored in the checkpoint: float32, float64, float16, or bfloat16 as uint16 (a bfloat16 is the
upper half of a float32, and NumPy has no such type); or a Quantised record of 8 or 4 bits, whose rows, taken as from an array,
come as float32 (quantised.py defines that). It is widened inside the operation, a few rows at a time, so the model as a
whole never exists in float32.

NumPy 2 turns float32 into float64 when it meets a float64 *scalar* such as np.sqrt(2); Python floats are harmless.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qwenaudio_np.bfloat16 import from_bfloat16
from qwenaudio_np.quantised import Quantised, dequantise, round_rows
from qwenaudio_np.quantised import quantise as quantise  # a backend makes weights as well

Array = NDArray[np.floating]  # float32 or float64
Stored = NDArray[np.generic]  # float32, float64, float16, or uint16 holding bfloat16
Weight = Stored | Quantised

ROWS = 1024  # weight rows widened at once in `linear`: 16 MB of float32 at width 4096


def widen(weight: Weight, dtype: np.dtype) -> Array:
    """Stored weight of any shape -> the values it stands for as `dtype`; free of copies where nothing changes."""
    if isinstance(weight, Quantised):
        weight = dequantise(weight)
    elif weight.dtype == np.uint16:
        weight = from_bfloat16(weight)
    return weight.astype(dtype, copy=False)


def embedding(table: Weight, ids: NDArray[np.intp], dtype: np.dtype) -> Array:
    """table [vocabulary, hidden], ids [length] -> [length, hidden]"""
    return widen(table[ids], dtype)


def linear(x: Array, weight: Weight, bias: Weight | None = None) -> Array:
    """x [length, in], weight [out, in], bias [out] -> x @ weight.T + bias [length, out]

    A Quantised weight rounds float32 activations as well, and takes float64 ones as they are.
    """
    if isinstance(weight, Quantised) and x.dtype == np.float32:
        x = round_rows(x)
    y = np.empty((len(x), len(weight)), x.dtype)  # [length, out]
    for start in range(0, len(weight), ROWS):
        rows = slice(start, start + ROWS)
        np.matmul(x, widen(weight[rows], x.dtype).T, out=y[:, rows])
    return y if bias is None else y + widen(bias, x.dtype)


def linears(x: Array, *products: tuple[Weight, Weight | None]) -> tuple[Array, ...]:
    """x [length, in], for every product a weight [out, in] and a bias [out] -> `linear` of each, [length, out]

    As one operation, so that a backend need prepare x only once.
    """
    return tuple(linear(x, weight, bias) for weight, bias in products)


def conv1d(x: Array, weight: Weight, bias: Weight, stride: int) -> Array:
    """Width 3, one zero of padding on both sides.  x [in, frames], weight [out, in, 3], bias [out] -> [out, ceil(frames / stride)]

    The sum over the three taps is written as one matrix product over (in, tap) pairs.
    """
    padded = np.pad(x, ((0, 0), (1, 1)))  # [in, 1 + frames + 1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]  # [in, out_frames, 3]
    columns = windows.transpose(0, 2, 1).reshape(3 * len(x), -1)  # [in * 3, out_frames]
    return widen(weight, x.dtype).reshape(len(weight), -1) @ columns + widen(bias, x.dtype)[:, None]


def erf(x: Array) -> Array:
    """The error function, elementwise, by the C library's double version: NumPy has none of its own."""
    values = np.fromiter((math.erf(value) for value in x.ravel().tolist()), np.float64, x.size)
    return values.reshape(x.shape).astype(x.dtype)


def gelu(x: Array) -> Array:
    """x * Phi(x), Phi the normal distribution; any shape.  The exact form with erf: the tanh form differs by up to 5e-4."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


def silu(x: Array) -> Array:
    """x * sigmoid(x), any shape.

    sigmoid(x) = 1 / (1 + e^-x) = e^x / (1 + e^x): the first form where x >= 0, the second elsewhere, so that exp never overflows.
    """
    small = np.exp(-np.abs(x))
    return x * np.where(x >= 0, 1.0, small).astype(x.dtype) / (1.0 + small)


def gated_silu(value: Array, gate: Array) -> Array:
    """value * silu(gate), [length, inner] both.  In this model value = w1(x), gate = w2(x): the silu is on w2."""
    return value * silu(gate)


def layer_norm(x: Array, weight: Weight, bias: Weight, eps: float = 1e-5) -> Array:
    """x [length, width] -> (x - mean) / sqrt(variance + eps) * weight + bias, over the width."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)  # divided by the width, not by width - 1
    return centred / np.sqrt(variance + eps) * widen(weight, x.dtype) + widen(bias, x.dtype)


def rms_norm(x: Array, weight: Weight, eps: float) -> Array:
    """x [length, hidden] -> x / sqrt(mean(x^2) + eps) * weight.

    The original normalises in float32, casts back, and only then multiplies by the weight. In float32 and float64 the
    cast does nothing, but the order of the two products is kept: it decides the last bit.
    """
    normed = x * (1.0 / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps))
    return normed * widen(weight, x.dtype)


def rotary(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate the first values of every head by the angles of their row's position.

    x [heads, length, head_dim], cos and sin [length, rotary_dim] -> [heads, length, head_dim]
    Halves layout: value i is paired with value i + rotary_dim / 2 (not with its neighbour). Values past rotary_dim stay.
    """
    part, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = np.split(part, 2, axis=-1)
    turned = part * cos + np.concatenate([-second, first], axis=-1) * sin
    return np.concatenate([turned, rest], axis=-1)


def softmax(x: Array) -> Array:
    """Over the last axis. A row of -inf alone has no distribution: it gives NaN, as IEEE arithmetic has it."""
    exps = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return exps / exps.sum(axis=-1, keepdims=True)


def attention(q: Array, k: Stored, v: Stored, causal: bool) -> Array:
    """softmax(q k^T / sqrt(head_dim)) v, a head at a time.

    q [heads, length, head_dim], k and v [heads, total, head_dim], as the cache holds them -> [length, heads * head_dim]
    causal: the queries are the last `length` of `total` positions, and each sees only itself and what came before.
    """
    heads, length, head_dim = q.shape
    out = np.empty((length, heads, head_dim), q.dtype)
    for head in range(heads):
        keys, values = widen(k[head], q.dtype), widen(v[head], q.dtype)  # [total, head_dim]
        scores = q[head] @ keys.T * (1.0 / math.sqrt(head_dim))  # [length, total]
        if causal:
            future = np.triu(np.ones(scores.shape, bool), k=scores.shape[1] - length + 1)  # the queries are the last rows
            scores[future] = -np.inf
        out[:, head] = softmax(scores) @ values
    return out.reshape(length, heads * head_dim)


def average_pool(x: Array) -> Array:
    """x [positions, state] -> means of positions (0, 1), (2, 3), ... [positions // 2, state]; an odd last one is dropped."""
    pairs = x[: len(x) // 2 * 2].reshape(-1, 2, x.shape[1])
    return pairs.mean(axis=1)
