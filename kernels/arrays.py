"""Arrays in the one form that kernels take, so that each kernel is compiled once per stored type and not once per flag and layout."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from qwenaudio_np.quantised import Quantised

Stored = NDArray[np.generic]


def readable(array: Stored) -> Stored:
    """The same numbers flat, contiguous, aligned and read-only, float16 as int16 bits (Numba has no float16); copied only if it must be.

    Read-only, because Numba takes a read-only array (a memory map) and a writable one for different types.
    """
    return _frozen(np.require(array, requirements=["C", "A"]).reshape(-1))


def rows_of(array: Stored) -> tuple[Stored, tuple[int, int]]:
    """[heads, length, head_dim] -> the memory it lies in, flat, and the elements from one head to the next and from one row to the next.

    A view of a cache, or of the heads side by side in one row, is taken as it is; only one whose rows are not contiguous is copied.
    """
    size = array.itemsize
    if not array.flags.aligned or array.strides[2] != size or any(step < 0 or step % size for step in array.strides):
        array = np.require(np.ascontiguousarray(array), requirements=["A"])
    to_head, to_row = (step // size for step in array.strides[:2])
    extent = (array.shape[0] - 1) * to_head + (array.shape[1] - 1) * to_row + array.shape[2]
    return _frozen(as_strided(array, (extent,), (size,))), (to_head, to_row)


def require_shape(name: str, array: Stored | Quantised, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `array` has this shape: kernels do not check bounds, and would read whatever lies behind a smaller one."""
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}, expected {shape}")


def _frozen(flat: Stored) -> Stored:
    flat = flat.view(np.int16) if flat.dtype == np.float16 else flat.view()
    flat.flags.writeable = False
    return flat
