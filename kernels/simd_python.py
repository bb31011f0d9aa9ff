"""What every instruction of `simd.py` computes, in NumPy: its definition, and what runs where NUMBA_DISABLE_JIT is set.

A Tile is an array [rows, 16] of float32 here. Flat arrays hold float32, float64, float16 as int16 bits or bfloat16 as uint16 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwenaudio_np.bfloat16 import from_bfloat16, to_bfloat16
from qwenaudio_np.quantised import GROUP, quantise_rows

LINE = 8  # int64 in a cache line
# Places of a board: the number of the call that is open, 0 for none; helpers at work in it; the next piece; the one behind the last;
# the address of the code; whether a piece could not be computed, for want of memory.
CALL, INSIDE, NEXT, LAST, CODE, FAILED = (number * LINE for number in range(6))

LANES = 16  # values per row of a tile
BLOCK = 8  # rows and columns transposed at once

Flat = NDArray[np.generic]
Tile = NDArray[np.float32]


def read(array: Flat, at: int, count: int) -> NDArray[np.float32]:
    """`count` stored values, widened to float32"""
    stored = array[at : at + count]
    if stored.dtype == np.uint16:
        return from_bfloat16(stored)
    return (stored.view(np.float16) if stored.dtype == np.int16 else stored).astype(np.float32)


def fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c of float32 numbers or arrays, rounded to float64 and then to float32: now and then the neighbour of what hardware gives,
    which rounds once."""
    return (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)


def prefetch(array: Flat, at: int, lines: int, level: int) -> None:
    """Have `lines` cache lines of 64 bytes, from array[at] on, brought into the cache of level 1 (for one reading) or 2; past the end of
    the array too. Changes no number."""


def zeros(rows: int) -> Tile:
    """A tile of zeros"""
    return np.zeros((rows, LANES), np.float32)


def load(array: Flat, at: int) -> Tile:
    """A tile of one row, array[at : at + 16], widened to float32"""
    return read(array, at, LANES)[None]


def store(tile: Tile, array: Flat, at: int, stride: int) -> None:
    """array[at + r * stride :][:16] = tile[r]"""
    for r, row in enumerate(tile):
        array[at + r * stride :][:LANES] = row


def add_row(tile: Tile, array: NDArray[np.float32], at: int) -> Tile:
    """tile[r] + array[at : at + 16]"""
    return tile + array[at : at + LANES]


def add_to(tile: Tile, array: NDArray[np.float32], at: int, stride: int) -> None:
    """array[at + r * stride :][:16] += tile[r]"""
    for r, row in enumerate(tile):
        array[at + r * stride :][:LANES] += row


def add_outer(tile: Tile, x: NDArray[np.float32], at: int, stride: int, w: Flat, w_at: int) -> Tile:
    """tile[r] + x[at + r * stride] * w[w_at : w_at + 16], fused and `w` widened: one step of a matrix product"""
    return fma(x[at + stride * np.arange(len(tile))][:, None], read(w, w_at, LANES), tile)


def add_multiple(tile: Tile, x: NDArray[np.float32], at: int, w: Flat, w_at: int) -> Tile:
    """tile[r] + x[at] * w[w_at + 16 * r :][:16], fused and `w` widened: one step of a sum of rows of `w`"""
    return fma(x[at], read(w, w_at, tile.size).reshape(tile.shape), tile)


def add_dot(tile: Tile, x: NDArray[np.float32], at: int, w: Flat, w_at: int, stride: int) -> Tile:
    """tile[r] + x[at : at + 16] * w[w_at + r * stride :][:16], fused and `w` widened: one step of R dot products with stored weights"""
    weights = np.stack([read(w, w_at + r * stride, LANES) for r in range(len(tile))])
    return fma(x[at : at + LANES], weights, tile)


def add(tile: Tile, other: Tile) -> Tile:
    """Sums of two tiles of one row"""
    return tile + other


def maximum(tile: Tile, other: Tile) -> Tile:
    """The larger values of two tiles of one row; NaN where either is NaN, or the other value"""
    return np.maximum(tile, other)


def exp_minus(tile: Tile, shift: np.float32) -> Tile:
    """exp(tile - shift) of a tile of one row, for differences <= 0 or NaN"""
    return exp_nonpositive(tile - shift)


def exp_nonpositive(x: Any) -> Any:
    """exp(x) of a float32 number or array, x <= 0 or NaN, within 1e-7 of the truth; 0 below -87.3, where the result is no normal float32"""
    x = np.float32(x)
    return np.where(x < np.float32(-87.33654), 0.0, np.exp(np.float64(x))).astype(np.float32)[()]


def lane_sum(tile: Tile) -> np.float32:
    """The sum of a tile of one row, by halves: i with i + 8, then i + 4, i + 2, i + 1"""
    row = tile[0]
    while len(row) > 1:
        row = row[: len(row) // 2] + row[len(row) // 2 :]
    return row[0]


def lane_max(tile: Tile) -> np.float32:
    """The largest of the values of a tile of one row; if any is NaN, NaN or the largest of some of the others"""
    return tile[0].max()


def store_sums(tile: Tile, array: NDArray[np.float32], at: int) -> None:
    """array[at + r] = the sum of tile[r], as in `lane_sum`"""
    for r in range(len(tile)):
        array[at + r] = lane_sum(tile[r : r + 1])


def widened(array: Flat, at: int) -> np.float32:
    """array[at] as float32, whichever type it is stored in"""
    return read(array, at, 1)[0]


def store_as(value: np.float32, array: NDArray[Any], at: int) -> None:
    """array[at] = value, as float32 or, in an array of uint16, rounded to bfloat16"""
    array[at] = to_bfloat16(np.full(1, value, np.float32))[0] if array.dtype == np.uint16 else value


def transpose(array: Flat, at: int, stride: int, out: NDArray[np.float32], out_at: int, out_stride: int) -> None:
    """out[out_at + j * out_stride + i] = array[at + i * stride + j], widened, for i, j < 8"""
    for i in range(BLOCK):
        out[out_at + i : out_at + i + (BLOCK - 1) * out_stride + 1 : out_stride] = read(array, at + i * stride, BLOCK)


# --- whole numbers: a group is 32 columns, its weights lie as qwenaudio_np/quantised.py packs them -----------------------------


def round_group(
    x: NDArray[np.float32],
    x_at: int,
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    starts: NDArray[np.int32],
    totals: NDArray[np.float32],
    at: int,
) -> None:
    """Group `at` of activations from x[x_at : x_at + 32]: codes[32 * at :][:32] and scales[at] as `quantise_rows` defines them. Of the sum
    of the codes: -128 times it in starts[at], times the scale in totals[at]."""
    rounded, scale = quantise_rows(x[None, x_at : x_at + GROUP])  # [1, 1, 32] and [1, 1]
    codes[GROUP * at :][:GROUP], scales[at], starts[at] = rounded.ravel(), scale[0, 0], -128 * rounded.sum(dtype=np.int32)
    totals[at] = np.float32(rounded.sum()) * scale[0, 0]


def group_sums(
    rows: int, bits: int, isa: str, codes: Flat, at: int, x: Flat, x_at: int, x_stride: int, starts: Flat, s_at: int, s_stride: int
) -> NDArray[np.int32]:
    """[rows, 16] sums over one group: code of row i of weights times code of row r of activations, x[x_at + r * x_stride :][:32].

    codes[at :] are the group's 64 * bits bytes; starts[s_at + r * s_stride] is -128 times the sum of row r's 32 codes, which some ways of
    computing begin with; `isa` says how, not what.
    """
    quads = codes[at : at + 64 * bits].view(np.uint8).reshape(-1, LANES, 4)
    if bits == 4:
        quads = np.stack([quads & 15, quads >> 4], axis=1).reshape(-1, LANES, 4)
    weights = quads.view(np.int8).transpose(1, 0, 2).reshape(LANES, -1).astype(np.int32)  # [16, 32]
    return np.stack([weights @ x[x_at + r * x_stride :][: weights.shape[1]].astype(np.int32) for r in range(rows)])


def add_scaled(tile: Tile, sums: NDArray[np.int32], scales: Flat, at: int, x: NDArray[np.float32], x_at: int, x_stride: int) -> Tile:
    """tile[r] + sums[r] * (scales[at : at + 16] * x[x_at + r * x_stride]), the outer product fused, the inner one rounded"""
    return fma(sums.astype(np.float32), read(scales, at, LANES) * x[x_at + x_stride * np.arange(len(tile))][:, None], tile)


# --- threads: a board is an array that several of them read and write at once; here there is one -------------------------------


def look(board: NDArray[np.int64], at: int) -> int:
    """board[at], as the latest change by any thread left it"""
    return int(board[at])


def put(board: NDArray[np.int64], at: int, value: int) -> None:
    """board[at] = value, seen by others after everything that this thread wrote before"""
    board[at] = value


def add_on(board: NDArray[np.int64], at: int, value: int) -> int:
    """board[at] += value in one step; what stood there before"""
    before = int(board[at])
    board[at] += value
    return before


def pause() -> None:
    """Wait for some ten nanoseconds, and leave the core meanwhile to another thread that shares it"""


def give_way() -> None:
    """Let another thread run that waits for this core"""


def offer(board: NDArray[np.int64], frame: NDArray[np.uint8], call: int, piece: Any, arguments: Any) -> None:
    """Open the board as `call` (0: to nobody) for taking pieces off it, and do so: piece(board[NEXT], *arguments), ... below board[LAST]"""
    while (i := add_on(board, NEXT, 1)) < board[LAST]:
        piece(i, *arguments)


def take_part(board: NDArray[np.int64], frame: NDArray[np.uint8]) -> None:
    """Do what lies on the board: one thread alone has nobody to take it from"""
