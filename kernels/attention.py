"""Attention in float32 by streaming softmax: no array of scores [length, total] ever exists.

A piece of work is one head and up to QUERIES queries. Keys and values pass by in blocks of KEYS. For every block and every tile
of ROWS queries: scores into a small buffer, each row's running maximum, exponentials relative to it, and the weighted values
added to a running result; when the maximum rises, what was summed so far is scaled down. Source: "FlashAttention-2", algorithm 1.
Few queries (decoding) take the keys as they lie, for turning them round would cost more than the products.

NaN and infinity come out as in ops.attention, but for two cases: what a query must not see cannot touch its row, not even as 0 * NaN;
and values are summed before they are divided by the sum of the weights, so that they overflow from 3e38 / total on.
"""

from __future__ import annotations

import math

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.ops import Array, Stored

from . import parallel
from .arrays import aligned, empty, require_shape, rows_of
from .compile_cache import inlined
from .linear import DOTS, one_dot, several_dots, turn
from .simd import (
    ROWS,
    add,
    add_multiple,
    add_outer,
    add_to,
    exp_minus,
    exp_nonpositive,
    lane_max,
    lane_sum,
    load,
    maximum,
    prefetch,
    store,
    widened,
    zeros,
)
from .simd_python import LANES

QUERIES = 192  # queries per piece of work at most: what turning a block of keys round costs is shared by so many
KEYS = 256  # keys and values at once: with head_dim 128, 256 KB in the second-level cache
WIDE = 8  # vectors of sums, of a cache line each, that stay in registers while rows of values pass by
FEW = 3  # up to so many queries are taken one by one
ROWS_AHEAD = 4  # of values between what is asked for and what is used
HIDDEN = np.float32(-np.inf)


def attention(q: Array, k: Stored, v: Stored, causal: bool) -> Array:
    """softmax(q k^T / sqrt(head_dim)) v, a head at a time.

    q [heads, length, head_dim], k and v [heads, total, head_dim], as the cache holds them -> [length, heads * head_dim]
    causal: the queries are the last `length` of `total` positions, and each sees only itself and what came before.
    Raises ValueError for shapes that do not fit.
    """
    if q.dtype != np.float32 or not q.size or not k.size:
        return ops.attention(q, k, v, causal)  # float64 is for truth, not for speed; of nothing there is nothing to gain
    (heads, length, head_dim), total = q.shape, k.shape[1]
    for name, array in (("k", k), ("v", v)):
        require_shape(name, array, (heads, total, head_dim))
    out = empty(length, heads * head_dim)
    seen = total - length + 1 if causal else total  # keys that query 0 sees; query i sees i more, but never more than `total`
    shape = (heads, length, total, head_dim)
    arrays = (*rows_of(q), *rows_of(k), *rows_of(v), out.reshape(-1), shape, seen)
    if length <= FEW:
        parallel.run(_one_by_one, arrays, heads, 2 * length * total * head_dim)
    else:
        most = min(QUERIES, parallel.within(ROWS, 2 * total * head_dim))
        parallel.run(_tiled, (*arrays, most), heads * -(-length // most), 2 * most * total * head_dim)
    return out


@inlined
def _sees(query: int, seen: int, total: int) -> int:
    """How many keys, counted from the first, this query sees."""
    return max(0, min(total, seen + query))


@inlined
def _to_weights(scores: Array, at: int, seen: int, padded: int, peak: float, scale: Array) -> tuple[float, float, float]:
    """One row of scores q k^T -> exp(score - maximum), in place: `seen` of them count, the rest up to `padded`, a multiple of 16, do not.

    scale [1] is applied here, to the sums, as in ops.attention: so both overflow for the same q and k.
    `peak` is the maximum of the blocks before. Returns the new maximum, what earlier sums must be multiplied with, and the
    sum of this block. While everything is -inf the exponentials are relative to 0 (-inf - -inf would be NaN): they are all 0,
    and a row that ends so is 0 / 0, which is NaN, as in ops.softmax.
    """
    for j in range(seen, padded):
        scores[at + j] = HIDDEN
    highest = load(scores, at)
    for j in range(LANES, padded, LANES):
        highest = maximum(highest, load(scores, at + j))
    top = lane_max(highest) * scale[0]
    if not top > peak and top == top:
        top = peak
    shift = top if top != HIDDEN else np.float32(0)
    total = zeros(1)
    for j in range(0, padded, LANES):
        weights = exp_minus(add_outer(zeros(1), scale, 0, 0, scores, at + j), shift)
        store(weights, scores, at + j, LANES)
        total = add(total, weights)
    return top, exp_nonpositive(peak - shift), lane_sum(total)


@parallel.shared
def _one_by_one(
    head: int, q: Array, q_steps: tuple, k: Array, k_steps: tuple, v: Array, v_steps: tuple, out: Array, shape: tuple, seen: int
) -> None:
    """All queries of one head, each against all of its keys at once."""
    heads, length, total, head_dim = shape
    scores = np.empty(-(-total // LANES) * LANES, np.float32)
    scale = np.full(1, np.float32(1.0 / math.sqrt(head_dim)))
    for query in range(length):
        count = _sees(query, seen, total)
        q_at = head * q_steps[0] + query * q_steps[1]
        for j in range(0, count // DOTS * DOTS, DOTS):
            several_dots(q, q_at, k, head * k_steps[0] + j * k_steps[1], k_steps[1], head_dim, scores, j)
        for j in range(count // DOTS * DOTS, count):
            one_dot(q, q_at, k, head * k_steps[0] + j * k_steps[1], 0, head_dim, scores, j)
        weight = _to_weights(scores, 0, count, len(scores), HIDDEN, scale)[2]
        at = (query * heads + head) * head_dim
        out[at : at + head_dim] = 0
        _add_rows(scores, count, v, head * v_steps[0], v_steps[1], out, at, head_dim)
        for c in range(head_dim):
            out[at + c] /= weight


@inlined
def _add_rows(weights: Array, count: int, v: Array, v_at: int, step: int, out: Array, at: int, head_dim: int) -> None:
    """out [head_dim] at `at` += the sum of `count` rows of v, `step` apart, times their weights. Each row is read from end to end."""
    wide, whole = head_dim // (WIDE * LANES) * (WIDE * LANES), head_dim // LANES * LANES
    for c in range(0, wide, WIDE * LANES):
        parts = zeros(WIDE)
        for j in range(count):
            prefetch(v, v_at + (j + ROWS_AHEAD) * step + c, WIDE, 2)
            parts = add_multiple(parts, weights, j, v, v_at + j * step + c)
        add_to(parts, out, at + c, LANES)
    for c in range(wide, whole, LANES):
        part = zeros(1)
        for j in range(count):
            part = add_multiple(part, weights, j, v, v_at + j * step + c)
        add_to(part, out, at + c, LANES)
    for c in range(whole, head_dim):
        for j in range(count):
            out[at + c] += weights[j] * widened(v, v_at + j * step + c)


@inlined
def _pack_queries(q: Array, at: int, step: int, count: int, head_dim: int, packed: Array) -> None:
    """`count` rows of q -> packed [tiles][head_dim][ROWS], zeros below the last."""
    for row in range(len(packed) // head_dim):
        to = row // ROWS * ROWS * head_dim + row % ROWS
        for c in range(head_dim):
            packed[to + c * ROWS] = q[at + row * step + c] if row < count else np.float32(0)


@inlined
def _pack_values(v: Array, at: int, step: int, count: int, head_dim: int, values: Array) -> None:
    """`count` rows of v -> values [head_dim / 16][KEYS][16], zeros right of the last column."""
    for start in range(0, head_dim, LANES):
        for j in range(count):
            to = (start // LANES * KEYS + j) * LANES
            if start + LANES <= head_dim:
                store(load(v, at + j * step + start), values, to, LANES)
            else:
                for c in range(LANES):
                    values[to + c] = widened(v, at + j * step + start + c) if start + c < head_dim else np.float32(0)


@inlined
def _add_values(scores: Array, seen: Array, values: Array, result: Array, at: int, columns: int) -> None:
    """result [ROWS, columns] at `at` += weights [ROWS, KEYS] times values; row r takes the first seen[r] of them."""
    for panel in range(columns // LANES):
        part = zeros(ROWS)
        for j in range(seen[0]):
            part = add_outer(part, scores, j, KEYS, values, (panel * KEYS + j) * LANES)
        add_to(part, result, at + panel * LANES, columns)
        for r in range(1, ROWS):  # causal: later rows see a little more
            for j in range(seen[0], seen[r]):
                for c in range(LANES):
                    result[at + r * columns + panel * LANES + c] += scores[r * KEYS + j] * values[(panel * KEYS + j) * LANES + c]


@parallel.shared
def _tiled(
    piece: int, q: Array, q_steps: tuple, k: Array, k_steps: tuple, v: Array, v_steps: tuple, out: Array, shape: tuple, seen: int, most: int
) -> None:
    """Up to `most` queries of one head."""
    heads, length, total, head_dim = shape
    blocks = -(-length // most)
    head, first = piece // blocks, piece % blocks * most
    count = min(most, length - first)
    tiles, columns, scale = -(-count // ROWS), -(-head_dim // LANES) * LANES, np.full(1, np.float32(1.0 / math.sqrt(head_dim)))
    queries = np.empty(tiles * ROWS * head_dim, np.float32)
    _pack_queries(q, head * q_steps[0] + first * q_steps[1], q_steps[1], count, head_dim, queries)
    keys, values, scores = aligned(KEYS * head_dim), aligned(KEYS * columns), aligned(ROWS * KEYS)
    peaks, weights = np.full(tiles * ROWS, HIDDEN), np.zeros(tiles * ROWS, np.float32)
    result, sees = aligned(tiles * ROWS * columns), np.empty(ROWS, np.intp)
    result[:] = 0
    for start in range(0, _sees(first + count - 1, seen, total), KEYS):
        here = min(KEYS, total - start)
        for j in range(0, here, LANES):
            turn(k, head * k_steps[0] + (start + j) * k_steps[1], k_steps[1], here - j, head_dim, keys, j * head_dim)
        _pack_values(v, head * v_steps[0] + start * v_steps[1], v_steps[1], here, head_dim, values)
        for tile in range(tiles):
            for r in range(ROWS):
                sees[r] = max(0, min(here, _sees(first + tile * ROWS + r, seen, total) - start))
            padded = -(-sees[ROWS - 1] // LANES) * LANES
            if padded == 0:
                continue
            for panel in range(0, padded, LANES):
                part = zeros(ROWS)
                for c in range(head_dim):
                    part = add_outer(part, queries, (tile * head_dim + c) * ROWS, 1, keys, panel * head_dim + c * LANES)
                store(part, scores, panel, KEYS)
            for r in range(ROWS):
                row = tile * ROWS + r
                peaks[row], factor, weight = _to_weights(scores, r * KEYS, sees[r], padded, peaks[row], scale)
                weights[row] = weights[row] * factor + weight
                for c in range(columns):
                    result[row * columns + c] *= factor
            _add_values(scores, sees, values, result, tile * ROWS * columns, columns)
    for row in range(count):
        for c in range(head_dim):
            out[((first + row) * heads + head) * head_dim + c] = result[row * columns + c] / weights[row]
