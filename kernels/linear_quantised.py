"""y = x W^T + b with W in 8 or 4 bits: `ops.linear` of a Quantised weight, in whole numbers.

Rows of x become int8, per group of 32 columns. Then for 16 rows of W and a tile of rows of x, group by group: the products of the
codes are summed exactly, and the sum, times both scales, is added to a tile of float32 sums in registers; with 4 bits, so is the
offset times the group's sum of activations. W is read once, in place, as it lies in the file.

Every output is summed by one thread, over the groups in order, in the same way whatever the instructions: bits do not depend on
either. One row of x (decoding) is a race for memory, many are one for arithmetic; only the number of rows in a tile differs.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.ops import Array, Stored, Weight
from qwenaudio_np.quantised import GROUP, Quantised, blocks_and_groups

from . import isa, parallel
from .arrays import readable
from .compile_cache import kernel
from .simd import add_outer, store, zeros
from .simd_integer import add_scaled, group_sums
from .simd_python import LANES

TILE = {"avx512vnni": 12, "avx2": 4, "plain": 4}  # rows of x at once: as many sums as the registers hold
BLOCKS = 4  # blocks of 16 rows of W per piece of work: they stay in the second-level cache while all of x passes by
SHARES = 4  # pieces of work per thread where W is streamed, as in linear.py
LARGEST_FINITE = np.int32(0x7F7FFFFF)  # bits of float32, as a whole number


def linear(x: Array, weight: Quantised, bias: Weight | None = None) -> Array:
    """x [length, in], weight [out, in], bias [out] -> x @ weight.T + bias [length, out]"""
    if x.dtype != np.float32 or not x.size or not len(weight):
        return ops.linear(x, weight, bias)  # float64 is for truth, not for speed; of nothing there is nothing to gain
    how = isa.get_isa()
    tile = TILE[how] if len(x) > 1 else 1
    codes, scales, totals = _quantised(x, -(-len(x) // tile) * tile)
    y = np.empty((len(x), len(weight)), np.float32)
    b = readable(np.full(len(weight), -0.0, np.float32) if bias is None else ops.widen(bias, x.dtype))
    blocks, groups = blocks_and_groups(weight.shape)
    shared = readable(np.multiply(totals, scales, dtype=np.float32)) if weight.bits == 4 else scales  # what offsets are multiplied with
    offsets = readable(weight.scales if weight.offsets is None else weight.offsets)
    run = _compiled(weight.bits, tile, how)
    arrays = (codes, scales, totals, shared, readable(weight.codes), readable(weight.scales), offsets, b, y.reshape(-1))
    count = BLOCKS if len(x) > tile else max(1, -(-blocks // (SHARES * parallel.get_threads())))
    parallel.run(lambda i: run(*arrays, len(x), groups, i * count, count), -(-blocks // count), x.size * len(weight))
    return y


def _quantised(x: Array, padded: int) -> tuple[Stored, Stored, Stored]:
    """As ops does in `quantise_rows`: flat codes [padded, groups * 32], scales and sums of the codes [padded, groups]; zeros below x."""
    groups = -(-x.shape[1] // GROUP)
    codes = np.zeros(padded * groups * GROUP, np.int8)
    scales, totals = np.zeros(padded * groups, np.float32), np.zeros(padded * groups, np.int32)
    flat = readable(x)
    parallel.run(lambda row: _quantise_row(flat, flat.view(np.int32), x.shape[1], row, codes, scales, totals), len(x), x.size)
    return readable(codes), readable(scales), readable(totals)


@kernel
def _quantise_row(x: Array, bits: Array, width: int, row: int, codes: Array, scales: Array, totals: Array) -> None:
    """One row of x, `bits` the same memory as whole numbers: magnitudes are ordered like their bits, infinity and NaN above all."""
    groups = (width + GROUP - 1) // GROUP
    for group in range(groups):
        first, count = row * width + group * GROUP, min(GROUP, width - group * GROUP)
        highest, where = np.int32(0), first
        for i in range(first, first + count):
            magnitude = bits[i] & np.int32(0x7FFFFFFF)
            if magnitude > highest:
                highest, where = magnitude, i
        largest, at = abs(x[where]), row * groups + group
        inverse = np.float32(127) / largest
        if highest > LARGEST_FINITE:
            scales[at] = np.nan
        elif inverse < np.inf:
            total = np.int32(0)
            for i in range(count):
                code = np.int32(np.rint(x[first + i] * inverse))
                codes[at * GROUP + i] = code
                total += code
            scales[at], totals[at] = largest / np.float32(127), total


@functools.cache
def _compiled(bits: int, tile: int, how: str) -> Any:
    """The kernel for weights of `bits`, `tile` rows of x at once."""
    group_bytes, has_offsets = 64 * bits, bits == 4

    def rows_by_blocks(
        codes: Array, scales: Array, totals: Array, shared: Array, w: Array, w_scales: Array, offsets: Array, bias: Array, y: Array,
        length: int, groups: int, first: int, count: int,
    ) -> None:  # fmt: skip
        outs = len(bias)
        buffer = np.empty(tile * LANES, np.float32)
        for row in range(0, length, tile):
            for block in range(first, min(first + count, (outs + LANES - 1) // LANES)):
                sums, at = zeros(tile), row * groups
                for group in range(block * groups, (block + 1) * groups):
                    dots = group_sums(tile, bits, how, w, group * group_bytes, codes, at * GROUP, groups * GROUP, totals, at, groups)
                    sums = add_scaled(sums, dots, w_scales, group * LANES, scales, at, groups)
                    if has_offsets:
                        sums = add_outer(sums, shared, at, groups, offsets, group * LANES)
                    at += 1
                store(sums, buffer, 0, LANES)
                for r in range(min(tile, length - row)):
                    for i in range(min(LANES, outs - block * LANES)):
                        out = block * LANES + i
                        y[(row + r) * outs + out] = buffer[r * LANES + i] + bias[out]

    rows_by_blocks.__qualname__ += f" {bits} {tile} {how}"  # the name under which it is cached
    return kernel(rows_by_blocks)
