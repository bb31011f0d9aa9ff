"""y = x W^T + b with W in 8 or 4 bits: `ops.linear` of a Quantised weight, in whole numbers.

Rows of x become int8, per group of 32 columns. Then for 16 rows of W and a tile of rows of x, group by group: the products of the
codes are summed exactly, and the sum, times both scales, is added to a tile of float32 sums in registers; with 4 bits, so is the
offset times the group's sum of activations. W is read once, in place, as it lies in the file.

Every output is summed by one thread, over the groups in order, in the same way whatever the instructions: bits do not depend on
either. One row of x (decoding) is a race for memory, many are one for arithmetic; the number of rows in a tile differs, and one
row asks for weights before it needs them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwenaudio_np.ops import Array, Stored
from qwenaudio_np.quantised import GROUP, Quantised, blocks_and_groups

from . import isa, parallel
from .arrays import readable
from .compile_cache import made_once
from .simd import add_outer, add_row, prefetch, store, zeros
from .simd_integer import add_scaled, group_sums, round_group
from .simd_python import LANES

TILE = {"avx512vnni": 12, isa.EMULATED: 12, "avx2": 4, "plain": 4}  # rows of x at once: as many sums as the registers hold
ROUNDED = 16  # rows of x per piece of work when they are rounded
BLOCKS = 4  # blocks of 16 rows of W per piece of work: they stay in the second-level cache while all of x passes by
AHEAD = 2048  # bytes of codes between what is asked for and what is used: the CPU by itself starts anew at every page of 4096
STREAMED = 1 << 17  # bytes of W per piece of work where W is streamed


def by_groups(x: Array) -> parallel.Product:
    """Products of x [length, in], which is rounded once for all of them."""
    how, length = isa.get_isa(), len(x)
    tile = TILE[how] if length > 1 else 1
    rounded = _quantised(x, tile)

    def product(weight: Quantised, bias: Stored, y: Array) -> parallel.Pieces:
        arrays, shape, pieces, cost = plan(weight, length, tile)
        return _compiled(weight.bits, tile, how), (*rounded, *arrays, bias, y.reshape(-1), shape), pieces, cost

    return product


def plan(weight: Quantised, length: int, tile: int) -> tuple[tuple[Stored, ...], tuple[int, ...], int, int]:
    """A product with `length` rows: the weight's arrays, the numbers that the kernel needs, how many pieces there are, the cost of each."""
    blocks, groups = blocks_and_groups(weight.shape)
    offsets = readable(weight.scales if weight.offsets is None else weight.offsets)
    block = groups * GROUP * LANES
    count = BLOCKS if length > tile else -(-STREAMED // (weight.nbytes // blocks))
    count = min(count, parallel.within(1, tile * block))
    rows = min(parallel.within(tile, count * block), length)
    shape = (length, groups, len(weight), count, rows)
    return (readable(weight.codes), readable(weight.scales), offsets), shape, -(-blocks // count) * -(-length // rows), count * rows * block


def room(values: int) -> tuple[NDArray[Any], ...]:
    """Where so many values are rounded to: codes, scales, and two forms of the sum of a group's codes (`round_group`); zeros."""
    groups = -(-values // GROUP)
    return np.zeros(groups * GROUP, np.int8), np.zeros(groups, np.float32), np.zeros(groups, np.int32), np.zeros(groups, np.float32)


def _quantised(x: Array, tile: int) -> tuple[Stored, Stored, Stored, Stored]:
    """As ops does in `quantise_rows`, `tile` rows side by side: flat codes [tiles, groups, tile, 32]; scales [tiles, groups, tile], and two
    forms of the sum of the codes (`round_group`); zeros below x. A tile lies in one piece: rows a power of two apart would share
    few places of the cache.
    """
    parts = room(-(-len(x) // tile) * tile * -(-x.shape[1] // GROUP) * GROUP)
    parallel.run(_quantise_rows, (readable(x), x.shape[1], tile, *parts), -(-len(x) // ROUNDED), ROUNDED * x.shape[1])
    codes, scales, starts, totals = map(readable, parts)
    return codes, scales, starts, totals


@parallel.shared
def _quantise_rows(piece: int, x: Array, width: int, tile: int, codes: Array, scales: Array, starts: Array, totals: Array) -> None:
    """ROUNDED rows of x."""
    whole, groups = width // GROUP, (width + GROUP - 1) // GROUP
    rest = np.zeros(GROUP, np.float32)  # the last group, filled up with zeros
    for row in range(piece * ROUNDED, min((piece + 1) * ROUNDED, len(x) // width)):
        at = row // tile * groups * tile + row % tile
        for group in range(whole):
            round_group(x, row * width + group * GROUP, codes, scales, starts, totals, at + group * tile)
        if whole < groups:
            for i in range(width - whole * GROUP):
                rest[i] = x[row * width + whole * GROUP + i]
            round_group(rest, 0, codes, scales, starts, totals, at + whole * tile)


@made_once
def _compiled(bits: int, tile: int, how: str) -> Any:
    """The kernel for weights of `bits`, `tile` rows of x at once."""
    group_bytes, has_offsets = 64 * bits, bits == 4
    streamed, ahead = tile == 1, AHEAD // group_bytes

    def rows_by_blocks(
        piece: int, codes: Array, scales: Array, starts: Array, totals: Array, w: Array, w_scales: Array, offsets: Array, bias: Array,
        y: Array, shape: tuple,
    ) -> None:  # fmt: skip
        length, groups, outs, count, rows = shape
        pieces_of_rows = -(-length // rows)
        first, first_row = piece // pieces_of_rows * count, piece % pieces_of_rows * rows
        buffer = np.empty(tile * LANES, np.float32)
        for row in range(first_row, min(first_row + rows, length), tile):
            for block in range(first, min(first + count, (outs + LANES - 1) // LANES)):
                sums, at = zeros(tile), row * groups
                for group in range(block * groups, (block + 1) * groups):
                    if streamed:
                        prefetch(w, (group + ahead) * group_bytes, bits, 1)
                        prefetch(w_scales, (group + ahead) * LANES, 1, 1)
                        if has_offsets:
                            prefetch(offsets, (group + ahead) * LANES, 1, 1)
                    dots = group_sums(tile, bits, how, w, group * group_bytes, codes, at * GROUP, GROUP, starts, at, 1)
                    sums = add_scaled(sums, dots, w_scales, group * LANES, scales, at, 1)
                    if has_offsets:
                        sums = add_outer(sums, totals, at, 1, offsets, group * LANES)
                    at += tile
                out = block * LANES
                if row + tile <= length and out + LANES <= outs:
                    if len(bias):
                        sums = add_row(sums, bias, out)
                    store(sums, y, row * outs + out, outs)
                else:
                    store(sums, buffer, 0, LANES)
                    for r in range(min(tile, length - row)):
                        for i in range(min(LANES, outs - out)):
                            y[(row + r) * outs + out + i] = buffer[r * LANES + i]
                        for i in range(min(LANES, len(bias) - out)):
                            y[(row + r) * outs + out + i] += bias[out + i]

    rows_by_blocks.__qualname__ += f" {bits} {tile} {how}"  # the name under which it is cached
    return parallel.shared(rows_by_blocks)
