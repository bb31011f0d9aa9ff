"""Weights to 8 or 4 bits, as `qwenaudio_np.quantised.quantise` defines it, bit for bit, in a fraction of the time.

A piece of work is a block of 16 rows. Group by group its 32 columns are turned to 32 vectors of 16 rows, and every step of the
search is a loop over them: sums over a group run in order, as in the definition, and LLVM makes vector code of the 16.
"""

from __future__ import annotations

import numpy as np

from qwenaudio_np import quantised
from qwenaudio_np.ops import Array
from qwenaudio_np.quantised import GROUP, LANES, QUAD, REFITS, TRIED, Quantised, empty_record

from . import parallel
from .arrays import readable
from .compile_cache import inlined

SMALL = 1 << 20  # weights up to which compiling this would take longer than the definition
COST = 64  # one weight costs about as much as so many multiplications
TRIED_8, TRIED_4 = (tuple(np.float32(part) for part in TRIED[bits]) for bits in (8, 4))
ZERO, ONE, TWO, COUNT = np.float32(0), np.float32(1), np.float32(2), np.float32(GROUP)
TOP_8, TOP_4, MIDDLE_4 = np.float32(127), np.float32(15), np.float32(7.5)
LARGEST = np.float32(np.finfo(np.float32).max)

# One array holds everything about a group: rows of 16 numbers, one for each row of the weight. Where they begin:
WEIGHTS, CODES, BEST = 0, GROUP * LANES, 2 * GROUP * LANES
MIDDLE, REACH, SCALE, OFFSET, BEST_SCALE, BEST_OFFSET, LEAST, ERROR, X, Y, SQUARE, PRODUCT = (
    3 * GROUP * LANES + i * LANES for i in range(12)
)
NUMBERS = 3 * GROUP * LANES + 12 * LANES


def quantise(weight: Array, bits: int) -> Quantised:
    """weight [out, inner] -> the record that stands for nearly the same; bits: 8 or 4"""
    out, inner = weight.shape
    if weight.size <= SMALL or weight.dtype != np.float32:
        return quantised.quantise(weight, bits)
    record = empty_record((out, inner), bits)
    codes, scales = record.codes, record.scales
    offsets = np.zeros((1, 1, 1), np.uint16) if record.offsets is None else record.offsets
    parallel.run(_block, (readable(weight), out, inner, bits, codes, scales, offsets), len(codes), LANES * inner * COST)
    return record


@parallel.shared
def _block(block: int, weight: Array, out: int, inner: int, bits: int, codes: Array, scales: Array, offsets: Array) -> None:
    """16 rows of the weight, fewer in the last block."""
    a = np.zeros(NUMBERS, np.float32)
    words = a.view(np.uint32)
    rows = min(LANES, out - block * LANES)
    for group in range(codes.shape[1]):
        count = min(GROUP, inner - group * GROUP)
        for i in range(GROUP):
            for r in range(LANES):
                at = (block * LANES + r) * inner + group * GROUP + i
                a[WEIGHTS + i * LANES + r] = weight[at] if i < count and r < rows else ZERO
        _search(a, words, bits)
        for r in range(LANES):
            scales[block, group, r] = words[BEST_SCALE + r] >> np.uint32(16)
            if bits == 4:
                offsets[block, group, r] = words[BEST_OFFSET + r] >> np.uint32(16)
        _pack(a, bits, codes[block, group])


@inlined
def _pack(a: Array, bits: int, packed: Array) -> None:
    """BEST -> the bytes of a group; one with NaN or infinity becomes NaN, its codes 0 already."""
    for i in range(GROUP):
        quad, place = i // QUAD, i % QUAD
        for r in range(LANES):
            code = int(a[BEST + i * LANES + r])
            if bits == 8:
                packed[(quad * LANES + r) * QUAD + place] = np.uint8(code & 255)
            else:
                packed[(quad // 2 * LANES + r) * QUAD + place] |= np.uint8(code << 4 * (quad % 2))


@inlined
def _search(a: Array, words: Array, bits: int) -> None:
    """WEIGHTS -> BEST, BEST_SCALE, BEST_OFFSET."""
    _span(a, bits)
    for tried in range(len(TRIED_8) if bits == 8 else len(TRIED_4)):
        part = TRIED_8[tried] if bits == 8 else TRIED_4[tried]
        for r in range(LANES):
            a[SCALE + r] = a[REACH + r] * part
            a[OFFSET + r] = a[MIDDLE + r]
        _codes(a, words, bits)
        if bits == 4:
            for _ in range(REFITS):
                _fit(a)
                _codes(a, words, bits)
        _keep_better(a, tried == 0)
    for r in range(LANES):
        a[X + r] = ZERO
    for i in range(0, GROUP * LANES, LANES):
        for r in range(LANES):
            a[X + r] += a[WEIGHTS + i + r] * ZERO  # NaN if any is NaN or infinite
    for r in range(LANES):
        if a[X + r] != ZERO:
            words[BEST_SCALE + r], a[BEST_OFFSET + r] = np.uint32(0x7FC00000), ZERO
            for i in range(0, GROUP * LANES, LANES):
                a[BEST + i + r] = ZERO


@inlined
def _span(a: Array, bits: int) -> None:
    """MIDDLE of each group, and REACH, the scale with which the codes just reach the weight farthest from it."""
    for r in range(LANES):
        a[X + r] = a[Y + r] = a[WEIGHTS + r]
    for i in range(1, GROUP):
        for r in range(LANES):
            value = a[WEIGHTS + i * LANES + r]
            a[X + r] = min(a[X + r], value)
            a[Y + r] = max(a[Y + r], value)
    for r in range(LANES):
        a[MIDDLE + r] = (a[X + r] + a[Y + r]) / TWO if bits == 4 else ZERO
        a[REACH + r] = ZERO
    for i in range(GROUP):
        for r in range(LANES):
            a[REACH + r] = max(a[REACH + r], abs(a[WEIGHTS + i * LANES + r] - a[MIDDLE + r]))
    for r in range(LANES):
        a[REACH + r] = a[REACH + r] / (MIDDLE_4 if bits == 4 else TOP_8)


@inlined
def _round(words: Array, at: int) -> None:
    """16 numbers to bfloat16."""
    for r in range(at, at + LANES):
        even = np.uint32((words[r] >> np.uint32(16)) & np.uint32(1))
        words[r] = np.uint32((words[r] + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000))


@inlined
def _codes(a: Array, words: Array, bits: int) -> None:
    """SCALE and, as the middle, OFFSET -> both rounded, OFFSET now that of code 0, and the CODES that fit them."""
    _round(words, SCALE)
    if bits == 4:
        for r in range(LANES):
            a[OFFSET + r] = a[OFFSET + r] - MIDDLE_4 * a[SCALE + r]
        _round(words, OFFSET)
    low, high = (-TOP_8, TOP_8) if bits == 8 else (ZERO, TOP_4)
    for i in range(CODES, CODES + GROUP * LANES, LANES):
        for r in range(LANES):
            step = ONE if a[SCALE + r] == ZERO else a[SCALE + r]
            a[i + r] = min(max(np.rint((a[i - CODES + r] - a[OFFSET + r]) / step), low), high)


@inlined
def _fit(a: Array) -> None:
    """CODES and SCALE -> the SCALE and the middle (in OFFSET) with the least squared error for these codes."""
    for r in range(LANES):
        a[X + r] = a[Y + r] = a[SQUARE + r] = a[PRODUCT + r] = ZERO
    for i in range(0, GROUP * LANES, LANES):
        for r in range(LANES):
            around, centred = a[CODES + i + r] - MIDDLE_4, a[WEIGHTS + i + r] - a[MIDDLE + r]
            a[X + r] += around
            a[Y + r] += centred
            a[SQUARE + r] += around * around
            a[PRODUCT + r] += around * centred
    for r in range(LANES):
        x, y = a[X + r], a[Y + r]
        slope = (COUNT * a[PRODUCT + r] - x * y) / (COUNT * a[SQUARE + r] - x * x)
        good = abs(slope) <= LARGEST and abs(y) <= LARGEST
        a[SCALE + r] = slope if good else a[SCALE + r]
        a[OFFSET + r] = a[MIDDLE + r] + ((y - slope * x) / COUNT if good else ZERO)


@inlined
def _keep_better(a: Array, first: bool) -> None:
    """BEST and what belongs to it become CODES where their squared error is less than LEAST."""
    for r in range(LANES):
        a[ERROR + r] = ZERO
    for i in range(0, GROUP * LANES, LANES):
        for r in range(LANES):
            off = a[WEIGHTS + i + r] - (a[CODES + i + r] * a[SCALE + r] + a[OFFSET + r])
            a[ERROR + r] += off * off
    for r in range(LANES):
        better = first or a[ERROR + r] < a[LEAST + r]
        a[X + r] = ONE if better else ZERO
        a[LEAST + r] = a[ERROR + r] if better else a[LEAST + r]
        a[BEST_SCALE + r] = a[SCALE + r] if better else a[BEST_SCALE + r]
        a[BEST_OFFSET + r] = a[OFFSET + r] if better else a[BEST_OFFSET + r]
    for i in range(0, GROUP * LANES, LANES):
        for r in range(LANES):
            a[BEST + i + r] = a[CODES + i + r] if a[X + r] == ONE else a[BEST + i + r]
