"""An independent reading of quantised weights: byte by byte, by the formulas of convert/FORMAT.md, in float64 and plain Python."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]


def bfloat16(bits: Any) -> float:
    return float(struct.unpack("<f", struct.pack("<I", int(bits) << 16))[0])


def weight_at(record: Any, r: int, c: int) -> float:
    """The weight in row r, column c."""
    block, row, group, quad, place = r // 16, r % 16, c // 32, c % 32 // 4, c % 4
    scale = bfloat16(record.scales[block, group, row])
    if record.bits == 8:
        byte = int(record.codes[block, group, 64 * quad + 4 * row + place])
        return scale * (byte - 256 if byte > 127 else byte)
    byte = int(record.codes[block, group, 64 * (quad // 2) + 4 * row + place])
    return scale * (byte // 16 if quad % 2 else byte % 16) + bfloat16(record.offsets[block, group, row])


def values(record: Any) -> Wide:
    """All weights, [out, inner]"""
    out, inner = record.shape
    return np.array([[weight_at(record, r, c) for c in range(inner)] for r in range(out)], np.float64).reshape(out, inner)


def rounded(x: NDArray[Any]) -> Wide:
    """Activations [length, inner] as the nearest multiples of the largest of their group of 32, over 127."""
    y = x.astype(np.float64)
    for row in y:
        for start in range(0, len(row), 32):
            largest = max(abs(value) for value in row[start : start + 32])
            for i in range(start, min(start + 32, len(row))):
                row[i] = round(row[i] * 127 / largest) * largest / 127 if largest else 0.0
    return y


def linear(x: NDArray[Any], record: Any, bias: NDArray[Any]) -> Wide:
    """[length, out]"""
    return (rounded(x) if x.dtype == np.float32 else x) @ values(record).T + bias


def rms(x: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
