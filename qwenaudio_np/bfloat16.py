"""bfloat16, the upper half of a float32, held as uint16 because NumPy has no such type."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def from_bfloat16(bits: NDArray[np.generic]) -> NDArray[np.float32]:
    """The same values, any shape; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to nearest, ties to even, any shape. NaN stays NaN (its carry would run over into the sign)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)
