"""Weights in 8 or 4 bits: what they are, how they come from floats, and what a product with them means.

32 neighbours along the inner dimension are a group. A group has a scale and, with 4 bits, an offset, in bfloat16:

    int8   weight = scale * code            code from -127 to 127
    int4   weight = scale * code + offset   code from 0 to 15

In a float32 product the activations are rounded to int8 too, per row and group (`round_rows`), so that all the multiplying is of
small whole numbers; float64 leaves them alone: it is there to show what that rounding costs. An offset costs half a bit per weight; on
Gaussian weights it brings the error of 4 bits from 8.1 % to 7.2 %, on heavy-tailed ones (Student's t, 4 degrees) from 11.1 % to 8.6 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwenaudio_np.bfloat16 import from_bfloat16, to_bfloat16

GROUP = 32  # weights that share a scale
LANES = 16  # rows side by side in memory, one per lane of a 512-bit register
QUAD = 4  # inner values of one row side by side: what one lane of a register multiplies at once

# Scales that are tried, as parts of the one that just reaches the largest weight, the first of equally good ones wins.
TRIED = {8: (1.0, 0.99, 0.98, 0.97, 1.004), 4: (1.0, 0.9, 0.8)}
REFITS = 2  # 4 bits: how often scale and offset are fitted to the codes, and the codes to them


@dataclass(frozen=True)
class Quantised:
    """A weight [out, inner] in memory as on disk (convert/FORMAT.md): blocks of 16 rows, in them groups of 32 columns.

    Behind the last row and the last column zeros were added up to whole blocks and groups; with 4 bits they come back as what offset and
    scale make of them, and what they are multiplied with is 0.
    """

    bits: int
    shape: tuple[int, int]  # (out, inner)
    codes: NDArray[np.uint8]  # [blocks, groups, 64 * bits]: see `packed`
    scales: NDArray[np.uint16]  # [blocks, groups, 16], bfloat16
    offsets: NDArray[np.uint16] | None  # [blocks, groups, 16], bfloat16, with 4 bits

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> NDArray[np.float32]:
        """Some of the rows as float32, [some, inner]"""
        chosen = np.arange(len(self))[rows]
        block, lane = np.divmod(chosen, LANES)
        values = _unpacked(self.codes, self.bits, block, lane) * from_bfloat16(self.scales[block, :, lane])[..., None]
        if self.offsets is not None:
            values += from_bfloat16(self.offsets[block, :, lane])[..., None]
        return values.reshape(len(chosen), self.codes.shape[1] * GROUP)[:, : self.shape[1]]

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and offsets."""
        return self.codes.nbytes + self.scales.nbytes + (0 if self.offsets is None else self.offsets.nbytes)

    @property
    def parts(self) -> dict[str, NDArray[np.generic]]:
        """What is stored, by the ending of its name."""
        parts: dict[str, NDArray[np.generic]] = {"codes": self.codes, "scales": self.scales}
        return parts if self.offsets is None else {**parts, "offsets": self.offsets}


def blocks_and_groups(shape: tuple[int, int]) -> tuple[int, int]:
    """[out, inner] -> how many blocks of 16 rows and groups of 32 columns it takes"""
    return math.ceil(shape[0] / LANES), math.ceil(shape[1] / GROUP)


def part_shapes(shape: tuple[int, int], bits: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a record's parts, by the endings of their names; the codes are bytes, the others bfloat16."""
    blocks, groups = blocks_and_groups(shape)
    shapes: dict[str, tuple[int, ...]] = {"codes": (blocks, groups, 64 * bits), "scales": (blocks, groups, LANES)}
    return {**shapes, "offsets": shapes["scales"]} if bits == 4 else shapes


def empty_record(shape: tuple[int, int], bits: int) -> Quantised:
    """A record [out, inner] of zeros, to be filled in place."""
    shapes = part_shapes(shape, bits)
    codes, scales = np.zeros(shapes["codes"], np.uint8), np.zeros(shapes["scales"], np.uint16)
    return Quantised(bits, shape, codes, scales, np.zeros(shapes["offsets"], np.uint16) if bits == 4 else None)


def dequantise(weight: Quantised) -> NDArray[np.float32]:
    """The weight [out, inner] that the codes stand for"""
    return weight[:]


def quantise(weight: NDArray[np.floating], bits: int) -> Quantised:
    """weight [out, inner] -> the record that stands for nearly the same. A group with NaN or infinity becomes NaN as a whole.

    Of a few scales each group takes the one with the least squared error. A row's codes depend on that row alone.
    """
    out, inner = weight.shape
    blocks, groups = blocks_and_groups((out, inner))
    padded = np.zeros((blocks * LANES, groups * GROUP), np.float32)
    padded[:out, :inner] = weight
    # One group to a column: sums over a group add whole rows, in the same order on every machine.
    columns = np.ascontiguousarray(padded.reshape(blocks * LANES * groups, GROUP).T)  # [32, rows * groups]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        codes, scales, offsets = _search(columns, bits)
    broken = ~np.isfinite(columns).all(axis=0)
    codes[:, broken], scales[broken], offsets[broken] = 0, np.nan, 0
    values = codes.T.reshape(blocks, LANES, groups, GROUP)

    def by_block(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
        return np.ascontiguousarray(to_bfloat16(numbers).reshape(blocks, LANES, groups).transpose(0, 2, 1))

    return Quantised(bits, (out, inner), packed(values, bits), by_block(scales), by_block(offsets) if bits == 4 else None)


Candidate = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]  # codes [32, groups], scales and offsets [groups]


def _search(w: NDArray[np.float32], bits: int) -> Candidate:
    """w [32, groups] -> of the candidates, for each group the first with the least squared error"""
    first, *others = _candidates(w, bits)
    best, least = first, _error(w, *first)
    for candidate in others:
        error = _error(w, *candidate)
        better = error < least
        least = np.where(better, error, least)
        best = tuple(np.where(better, new, old) for new, old in zip(candidate, best, strict=True))  # type: ignore[assignment]
    return best


def _candidates(w: NDArray[np.float32], bits: int) -> Iterator[Candidate]:
    """int8: the scales of TRIED. int4: each after REFITS rounds of fitting scale and offset to the codes and rounding anew."""
    low, high = w.min(axis=0), w.max(axis=0)
    middle = (low + high) * np.float32(0.5) if bits == 4 else np.zeros_like(low)
    centred = w - middle
    reach = np.abs(centred).max(axis=0) / np.float32(7.5 if bits == 4 else 127)
    for part in np.array(TRIED[bits], np.float32):
        codes, scale, offset = _codes(w, np.multiply(reach, part, dtype=np.float32), middle, bits)
        for _ in range(REFITS if bits == 4 else 0):
            scale, shift = _fitted(centred, codes, scale)
            codes, scale, offset = _codes(w, scale, middle + shift, bits)
        yield codes, scale, offset


def _codes(w: NDArray[np.float32], scale: NDArray[np.float32], middle: NDArray[np.float32], bits: int) -> Candidate:
    """The codes that fit scale and offset once these are rounded to bfloat16. int4: `middle` is where 7.5, the codes' middle, shall lie."""
    scale = from_bfloat16(to_bfloat16(scale))
    step = np.where(scale == 0, np.float32(1), scale)  # a group of equal weights
    if bits == 8:
        return np.clip(np.rint(w / step), -127, 127), scale, middle
    offset = from_bfloat16(to_bfloat16(middle - np.float32(7.5) * scale))
    return np.clip(np.rint((w - offset) / step), 0, 15), scale, offset


def _fitted(
    centred: NDArray[np.float32], codes: NDArray[np.float32], scale: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale, and how far the middle moves, for the least squared error with given codes: a line through 32 points.

    Where all codes are one, which says nothing of the scale, or where a sum overflows, nothing changes.
    """
    around = codes - np.float32(7.5)
    n, x, y = np.float32(GROUP), around.sum(axis=0), centred.sum(axis=0)
    spread = n * (around * around).sum(axis=0) - x * x
    slope = (n * (around * centred).sum(axis=0) - x * y) / spread
    good = np.isfinite(slope) & np.isfinite(y)
    return np.where(good, slope, scale), np.where(good, (y - slope * x) / n, np.float32(0))


def _error(
    w: NDArray[np.float32], codes: NDArray[np.float32], scale: NDArray[np.float32], offset: NDArray[np.float32]
) -> NDArray[np.float32]:
    return np.square(w - (codes * scale + offset)).sum(axis=0)


def packed(codes: NDArray[np.floating], bits: int) -> NDArray[np.uint8]:
    """Codes [blocks, 16, groups, 32] -> bytes [blocks, groups, 64 * bits].

    A quad is 4 neighbours of one row. int8: [8 quads][16 rows][4], two's complement. int4: [4 pairs of quads][16 rows][4],
    the even quad in the low half of the byte, the odd one in the high half.
    """
    blocks, _, groups, _ = codes.shape
    quads: NDArray[np.uint8] = codes.astype(np.int8).view(np.uint8).reshape(blocks, LANES, groups, GROUP // QUAD, QUAD)
    quads = quads.transpose(0, 2, 3, 1, 4)
    if bits == 4:
        quads = quads[:, :, 0::2] | quads[:, :, 1::2] << np.uint8(4)
    return np.ascontiguousarray(quads).reshape(blocks, groups, 64 * bits)


def _unpacked(codes: NDArray[np.uint8], bits: int, block: NDArray[np.intp], lane: NDArray[np.intp]) -> NDArray[np.float32]:
    """Chosen rows, each a block and a lane in it, of the codes -> [rows, groups, 32]"""
    blocks, groups, _ = codes.shape
    quads = codes.reshape(blocks, groups, bits, LANES, QUAD)[block, :, :, lane]  # [rows, groups, bits, 4]: 8 quads, or 4 pairs of them
    if bits == 8:
        return quads.view(np.int8).astype(np.float32).reshape(len(block), groups, GROUP)
    return np.stack([quads & 15, quads >> 4], axis=3).astype(np.float32).reshape(len(block), groups, GROUP)


def quantise_rows(x: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Activations [length, inner] -> codes, -127 to 127, [length, groups, 32], zeros behind the last column; scales [length, groups].

    The largest of each group becomes 127. A group with NaN or infinity gets codes 0 and scale NaN, so that NaN comes out.
    One whose largest is so small (below 4e-37) that 127 / largest overflows counts as zeros.
    """
    groups = math.ceil(x.shape[1] / GROUP)
    padded = np.zeros((len(x), groups, GROUP), np.float32)
    padded.reshape(len(x), groups * GROUP)[:, : x.shape[1]] = x
    largest = np.abs(padded).max(axis=2)  # [length, groups]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        inverse = np.float32(127) / largest  # codes are products with it: one division per group, and the same last bit everywhere
        usable = np.isfinite(inverse) & (inverse > 0)
        codes = np.rint(padded * np.where(usable, inverse, np.float32(0))[..., None])
    codes[~usable] = 0
    scales = np.where(usable, largest / np.float32(127), np.where(np.isfinite(largest), np.float32(0), np.float32(np.nan)))
    return codes.astype(np.int8), scales.astype(np.float32)


def round_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """x [length, inner] -> the values that its codes stand for"""
    codes, scales = quantise_rows(x)
    return (codes * scales[..., None]).reshape(len(x), codes.shape[1] * GROUP)[:, : x.shape[1]]
