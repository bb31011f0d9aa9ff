"""y = x W^T + b in float32, the weights read as they are stored: almost all of the model's work.

One row of x (decoding) is a race for memory: rows of W are streamed once, widened in registers, four dot products at a time.
Many rows are a race for arithmetic. W is taken in panels of DEPTH columns x 16 rows, widened and turned round into a buffer
that stays in the cache; x is repacked once so that ROWS rows lie side by side, and passes by each panel; every step of the innermost
loop adds an outer product, ROWS values of x times 16 weights, to a tile of sums in registers.

Every output is summed by one thread in an order that depends on the shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.ops import Array, Stored, Weight
from qwenaudio_np.quantised import Quantised

from . import linear_quantised, parallel
from .arrays import aligned, empty, readable, require_shape
from .compile_cache import inlined
from .simd import ROWS, add_dot, add_outer, add_row, add_to, load, prefetch, store, store_sums, transpose, widened, zeros
from .simd_python import BLOCK, LANES

DEPTH = 128  # columns of W at once: a panel of them is 8 KB and stays in the first-level cache
PANELS = 16  # most panels of 16 rows of W per piece of work: 128 KB in the second-level cache
SHARES = 4  # pieces of work that each thread finds at least, if there are so many panels
MOST = 384  # rows of x per piece of work: DEPTH columns of them, 192 KB, stay there too while the panels change
DOTS = 4  # rows of W whose dot products run at once
FEW = 8  # up to this many rows of x, turning W round would cost more than it saves
STREAMED = 1 << 17  # bytes of W per piece of work when W is streamed
AHEAD = 2048  # bytes of a row between what is asked for and what is used: the CPU by itself starts anew at every page of 4096
NO_BIAS = readable(np.empty(0, np.float32))


def linear(x: Array, weight: Weight, bias: Weight | None = None) -> Array:
    """x [length, in], weight [out, in], bias [out] -> x @ weight.T + bias [length, out]"""
    return linears(x, (weight, bias))[0]


def linears(x: Array, *products: tuple[Weight, Weight | None]) -> tuple[Array, ...]:
    """x [length, in], for every product a weight [out, in] and a bias [out] -> x @ weight.T + bias of each, [length, out]

    x is rounded, or repacked, once for all of them. Raises ValueError for shapes that do not fit.
    """
    if x.dtype != np.float32 or not x.size:
        return ops.linears(x, *products)  # float64 is for truth, not for speed; of nothing there is nothing to gain
    x = np.ascontiguousarray(x)
    ways: dict[Callable[[Array], parallel.Product], parallel.Product] = {}
    results = []
    for weight, bias in products:
        require_shape("weight", weight, (len(weight), x.shape[1]))
        if bias is not None:
            require_shape("bias", bias, (len(weight),))
        y = empty(len(x), len(weight))
        results.append(y)
        if not y.size:
            continue
        way = linear_quantised.by_groups if isinstance(weight, Quantised) else by_dots if len(x) <= FEW else by_panels
        if way not in ways:
            ways[way] = way(x)
        parallel.run(*ways[way](weight, NO_BIAS if bias is None else readable(ops.widen(bias, x.dtype)), y))
    return tuple(results)


def by_dots(x: Array) -> parallel.Product:
    """Products of few rows x [length, in]: W is streamed."""
    flat, width = readable(x), x.shape[1]

    def product(weight: Stored, bias: Stored, y: Array) -> parallel.Pieces:
        rows, pieces = dots_plan(weight, x.size)
        return _dots, (flat, readable(weight), bias, y.reshape(-1), width, len(weight), rows), pieces, rows * x.size

    return product


def dots_plan(weight: Stored, size: int) -> tuple[int, int]:
    """How many rows of W a piece takes, and how many pieces there are; `size`: values of x that each row of W meets."""
    rows = min(-(-STREAMED // (DOTS * weight.shape[1] * weight.itemsize)) * DOTS, parallel.within(DOTS, size))
    return rows, -(-len(weight) // rows)


def _dot_products(count: int) -> Any:
    """y[y_at + i] = x[x_at :][:width] . weight[w_at + i * step :][:width] for i < count"""

    def dots(x: Array, x_at: int, weight: Stored, w_at: int, step: int, width: int, y: Array, y_at: int) -> None:
        sums = zeros(count)
        whole, ahead = width // LANES * LANES, AHEAD // weight.itemsize
        for k in range(0, whole, LANES):
            later = w_at + k + ahead + (0 if k + ahead < width else (count - 1) * step)  # behind these rows lie the next ones
            for i in range(count):
                prefetch(weight, later + i * step, 1, 2)
            sums = add_dot(sums, x, x_at + k, weight, w_at + k, step)
        store_sums(sums, y, y_at)
        for i in range(count):
            for k in range(whole, width):
                y[y_at + i] += x[x_at + k] * widened(weight, w_at + i * step + k)

    dots.__qualname__ += f" {count}"
    return inlined(dots)


several_dots, one_dot = _dot_products(DOTS), _dot_products(1)


@parallel.shared
def _dots(piece: int, x: Array, weight: Stored, bias: Array, y: Array, width: int, outs: int, count: int) -> None:
    """`count` outputs of every row of x. Rows of W stay in the cache while the rows of x pass by."""
    rows = len(x) // width
    out, last = piece * count, min((piece + 1) * count, outs)
    while out < last:
        step = DOTS if out + DOTS <= last else 1
        for row in range(rows):
            if step == DOTS:
                several_dots(x, row * width, weight, out * width, width, width, y, row * outs + out)
            else:
                one_dot(x, row * width, weight, out * width, width, width, y, row * outs + out)
            for i in range(out, min(out + step, len(bias))):
                y[row * outs + i] += bias[i]
        out += step


def by_panels(x: Array) -> parallel.Product:
    """Products of many rows x [length, in]: x is repacked, and W turned round panel by panel."""
    length, width = x.shape
    tiles, packed = tiles_for(length, width)
    parallel.run(_pack, (readable(x), width, length, packed), tiles, ROWS * width)
    return of_tiles(packed, length, width)


def tiles_for(length: int, width: int) -> tuple[int, Array]:
    """How many tiles hold `length` rows, and where they go: packed [width / DEPTH][tiles][DEPTH][ROWS]."""
    tiles = -(-length // ROWS)
    return tiles, empty(tiles * ROWS * width)


def of_tiles(filled: Array, length: int, width: int) -> parallel.Product:
    """Products of rows that lie in tiles."""
    packed = readable(filled)

    def product(weight: Stored, bias: Stored, y: Array) -> parallel.Pieces:
        outs = len(weight)
        columns = min(PANELS, -(-outs // (LANES * SHARES * parallel.get_threads()))) * LANES
        rows = min(MOST, parallel.within(ROWS, columns * width), length)
        arguments = (packed, readable(weight), bias, y.reshape(-1), width, length, outs, columns, rows)
        return _panels, arguments, -(-outs // columns) * -(-length // rows), columns * rows * width

    return product


@parallel.shared
def _pack(tile: int, x: Array, width: int, length: int, packed: Array) -> None:
    """ROWS rows of x [length, width] -> one tile of `tiles_for`; zeros below the last row."""
    tiles = len(packed) // (ROWS * width)
    for start in range(0, width, DEPTH):
        depth = min(DEPTH, width - start)
        for r in range(ROWS):
            row, at = tile * ROWS + r, (start * tiles + tile * depth) * ROWS + r
            for k in range(depth):
                packed[at + k * ROWS] = x[row * width + start + k] if row < length else np.float32(0)


@inlined
def turn(weight: Stored, at: int, step: int, rows: int, depth: int, panel: Array, to: int) -> None:
    """16 rows, `step` elements apart, `depth` values of each -> panel [depth][16]; zeros in place of rows from `rows` on."""
    for half in range(0, LANES, BLOCK):
        whole = depth // BLOCK * BLOCK if half + BLOCK <= rows else 0
        for k in range(0, whole, BLOCK):
            transpose(weight, at + half * step + k, step, panel, to + k * LANES + half, LANES)
        for i in range(half, half + BLOCK):
            for k in range(whole, depth):
                panel[to + k * LANES + i] = widened(weight, at + i * step + k) if i < rows else np.float32(0)


@parallel.shared
def _panels(
    piece: int, packed: Array, weight: Stored, bias: Array, y: Array, width: int, length: int, outs: int, columns: int, rows: int
) -> None:
    """`columns` outputs (whole panels) of `rows` rows of x (whole tiles, but for the last)."""
    pieces_of_rows = -(-length // rows)
    first, first_row = piece // pieces_of_rows * columns, piece % pieces_of_rows * rows
    tiles, first_tile = -(-length // ROWS), first_row // ROWS
    last_row = min(first_row + rows, length)
    here = -(-last_row // ROWS) - first_tile
    panels = min(columns, outs - first + LANES - 1) // LANES
    columns = panels * LANES
    buffer, sums = aligned(columns * DEPTH), aligned(here * ROWS * columns)
    sums[:] = 0
    for start in range(0, width, DEPTH):
        depth = min(DEPTH, width - start)
        for panel in range(panels):
            row = first + panel * LANES
            turn(weight, row * width + start, width, outs - row, depth, buffer, panel * LANES * depth)
        for panel in range(panels):
            for tile in range(here):
                part = zeros(ROWS)
                x_at, w_at = (start * tiles + (first_tile + tile) * depth) * ROWS, panel * LANES * depth
                for k in range(depth):
                    part = add_outer(part, packed, x_at + k * ROWS, 1, buffer, w_at + k * LANES)
                add_to(part, sums, tile * ROWS * columns + panel * LANES, columns)
    for row in range(first_row, last_row):
        at, to = (row - first_row) * columns, row * outs
        for out in range(first, first + columns, LANES):
            _write(sums, at + out - first, bias, out, y, to + out, min(LANES, outs - out))


@inlined
def _write(sums: Array, at: int, bias: Array, out: int, y: Array, to: int, count: int) -> None:
    """y[to :][:count] = sums[at :][:count] + bias[out :][:count], `count` of 16"""
    if count == LANES:
        part = load(sums, at)
        if len(bias):
            part = add_row(part, bias, out)
        store(part, y, to, LANES)
    else:
        for i in range(count):
            y[to + i] = sums[at + i] + (bias[out + i] if len(bias) else np.float32(0))
