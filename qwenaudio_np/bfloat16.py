"""bfloat16, the upper half of a float32, held as uint16 because NumPy has no such type."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def from_bfloat16(bits: NDArray[np.generic]) -> NDArray[np.float32]:
    """The same values, any shape; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    """float16, float32 or float64, any shape, rounded once: to nearest, ties to even. NaN stays NaN (its carry would run into the sign)."""
    near = _to_odd_float32(values) if values.dtype == np.float64 else values
    bits = np.ascontiguousarray(near, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _to_odd_float32(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """float64; an inexact value to the neighbour whose last bit is 1: rounding that once more equals rounding once."""
    near = values.astype(np.float32, order="C")
    bits = near.view(np.uint32)
    wrong = (near != values) & (bits & 1 == 0)
    # A float's magnitude grows with its bits, so one bit down is towards zero whatever the sign.
    above, below = wrong & (np.abs(near) > np.abs(values)), wrong & (np.abs(near) < np.abs(values))  # of `near` before it moves
    bits[above] -= np.uint32(1)
    bits[below] += np.uint32(1)
    return near
