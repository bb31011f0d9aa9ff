"""Slow, obvious float64 twins of every operation, with loops over single numbers; they share no code with the package.

Each returns what the operation should give, and a bound on how far a result rounded at every step may be from it, in units of the
number type's epsilon: a sum of n products is off by at most n roundings of each product (Higham, "Accuracy and Stability of
Numerical Algorithms", section 3.1).
"""

from __future__ import annotations

import math
import operator
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Answer = tuple[Array, Array]  # expected, and how many epsilons each value may be off


def wide(stored: NDArray[Any]) -> Array:
    """Stored numbers as float64, bit by bit: uint16 is a bfloat16, the first two bytes of a big-endian float32."""
    if stored.dtype == np.uint16:
        values = [struct.unpack(">f", struct.pack(">HH", bits, 0))[0] for bits in stored.ravel().tolist()]
    elif stored.dtype == np.float16:
        values = [struct.unpack("<e", stored_bytes)[0] for stored_bytes in map(np.float16.tobytes, stored.ravel())]
    else:
        values = stored.ravel().tolist()
    return np.array(values, np.float64).reshape(stored.shape)


def dot(a: Array, b: Array) -> float:
    """Exactly rounded."""
    return math.fsum(map(operator.mul, a.tolist(), b.tolist()))


def embedding(table: NDArray[Any], ids: NDArray[np.intp]) -> Answer:
    expected = np.array([wide(table[i]) for i in ids.tolist()]).reshape(len(ids), table.shape[1])
    return expected, np.zeros(expected.shape)


def linear(x: Array, weight: NDArray[Any], bias: NDArray[Any] | None = None) -> Answer:
    w, b = wide(weight), np.zeros(len(weight)) if bias is None else wide(bias)
    expected = np.array([[dot(row, column) + b[j] for j, column in enumerate(w)] for row in x]).reshape(len(x), len(w))
    sizes = np.array([[dot(abs(row), abs(column)) + abs(b[j]) for j, column in enumerate(w)] for row in x]).reshape(len(x), len(w))
    return expected, (x.shape[1] + 2) * sizes


def conv1d(x: Array, weight: NDArray[Any], bias: NDArray[Any], stride: int) -> Answer:
    w, b = wide(weight), wide(bias)
    frames = x.shape[1]
    expected = np.zeros((len(w), -(-frames // stride)))
    sizes = np.zeros(expected.shape)
    for out in range(len(w)):
        for n in range(expected.shape[1]):
            middle = n * stride
            taps = [(i, tap) for i in range(len(x)) for tap in range(3) if 0 <= middle + tap - 1 < frames]
            products = [x[i, middle + tap - 1] * w[out, i, tap] for i, tap in taps]
            expected[out, n] = math.fsum(products) + b[out]
            sizes[out, n] = math.fsum(map(abs, products)) + abs(b[out])
    return expected, (3 * len(x) + 2) * sizes


def gelu(x: Array) -> Answer:
    expected = np.array([value * 0.5 * math.erfc(-value / math.sqrt(2)) for value in x.ravel().tolist()]).reshape(x.shape)
    return expected, 4 * abs(x)


def gated_silu(value: Array, gate: Array) -> Answer:
    pairs = zip(value.ravel().tolist(), gate.ravel().tolist(), strict=True)
    expected = np.array([v * g / (1 + math.exp(-g)) for v, g in pairs]).reshape(value.shape)
    return expected, 8 * abs(expected)


def layer_norm(x: Array, weight: NDArray[Any], bias: NDArray[Any], eps: float = 1e-5) -> Answer:
    w, b = wide(weight), wide(bias)
    expected, off = np.zeros(x.shape), np.zeros(x.shape)
    for i, row in enumerate(x):
        n = len(row)
        mean = math.fsum(row) / n
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in row) / n + eps)
        expected[i] = [(value - mean) / deviation * w[j] + b[j] for j, value in enumerate(row)]
        off[i] = (2 * n + 8) * abs(row).max() / deviation * abs(w) + 2 * abs(b)
    return expected, off


def rms_norm(x: Array, weight: NDArray[Any], eps: float) -> Answer:
    w = wide(weight)
    expected = np.zeros(x.shape)
    for i, row in enumerate(x):
        root = math.sqrt(math.fsum(value * value for value in row) / len(row) + eps)
        expected[i] = [value / root * w[j] for j, value in enumerate(row)]
    return expected, (x.shape[1] + 8) * abs(expected)


def rotary(x: Array, cos: Array, sin: Array) -> Answer:
    expected, sizes = x.copy(), np.zeros(x.shape)
    half = cos.shape[1] // 2
    for head in range(x.shape[0]):
        for n in range(x.shape[1]):
            for i in range(half):
                a, b = x[head, n, i], x[head, n, i + half]
                expected[head, n, i] = a * cos[n, i] - b * sin[n, i]
                expected[head, n, i + half] = b * cos[n, i + half] + a * sin[n, i + half]
                sizes[head, n, [i, i + half]] = abs(a) + abs(b)
    return expected, 3 * sizes


def attention(q: Array, k: Array, v: Array, causal: bool) -> Answer:
    """Only the keys that a query sees are looked at. Off: the scores by their own bound (in the exponent, so relatively), then two sums."""
    heads, length, head_dim = q.shape
    total = k.shape[1]
    expected, off = np.zeros((length, heads, head_dim)), np.zeros((length, heads, head_dim))
    for head in range(heads):
        for n in range(length):
            seen = total - length + 1 + n if causal else total
            scores = [dot(q[head, n], key) / math.sqrt(head_dim) for key in k[head, :seen]]
            sizes = [dot(abs(q[head, n]), abs(key)) / math.sqrt(head_dim) for key in k[head, :seen]]
            weights = [math.exp(score - max(scores)) for score in scores]
            weights = [weight / math.fsum(weights) for weight in weights]
            for c in range(head_dim):
                products = [weight * v[head, j, c] for j, weight in enumerate(weights)]
                expected[n, head, c] = math.fsum(products)
                off[n, head, c] = math.fsum(map(abs, products)) * (2 * (head_dim + 8) * max(sizes) + 2 * seen + 16)
    return expected.reshape(length, -1), off.reshape(length, -1)


def average_pool(x: Array) -> Answer:
    rows = range(0, len(x) - 1, 2)
    expected = np.array([[(x[i, c] + x[i + 1, c]) / 2 for c in range(x.shape[1])] for i in rows]).reshape(len(x) // 2, x.shape[1])
    sizes = np.array([[abs(x[i, c]) + abs(x[i + 1, c]) for c in range(x.shape[1])] for i in rows]).reshape(expected.shape)
    return expected, 2 * sizes
