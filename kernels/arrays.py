"""Arrays that kernels read, in one form, so that each kernel is compiled once per stored type; and those that they write."""

from __future__ import annotations

import math
import weakref

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from qwenaudio_np.quantised import Quantised

from .compile_cache import inlined

Stored = NDArray[np.generic]

CACHE_LINE = 64  # bytes
LARGE = 1 << 20  # bytes from which on memory is kept
KEPT = 1 << 28  # bytes kept at most
_kept: dict[int, NDArray[np.uint8]] = {}  # memory that nobody uses, by its id


def empty(*shape: int) -> NDArray[np.float32]:
    """float32, not initialised; where it is large, in memory that an earlier one has left.

    The system hands out memory page by page, each zeroed when it is first touched: for the results of an encoder's layer that takes longer
    than some of its operations.
    """
    size = 4 * math.prod(shape)
    if size < LARGE:
        return np.empty(shape, np.float32)
    memory = None
    for key in list(_kept):
        if size + CACHE_LINE <= len(_kept.get(key, ())) <= 2 * size:
            memory = _kept.pop(key, None)  # another thread may have been quicker
            break
    if memory is None:
        memory = np.empty(size + CACHE_LINE, np.uint8)
    skip = -memory.ctypes.data % CACHE_LINE
    # By way of a memoryview: then views of the array keep it alive, and not the memory behind it, which would be given away under them.
    array = np.frombuffer(memory.data[skip : skip + size], np.float32)
    weakref.finalize(array, _keep, memory).atexit = False
    return array.reshape(shape)


def _keep(memory: NDArray[np.uint8]) -> None:
    """For the next array; what has been kept longest goes where there is too much."""
    _kept[id(memory)] = memory
    for key in list(_kept):
        if sum(len(kept) for kept in list(_kept.values())) <= KEPT:
            return
        _kept.pop(key, None)


@inlined
def aligned(count: int) -> NDArray[np.float32]:
    """float32 [count] for a kernel, not initialised, from the start of a cache line on.

    A vector of 16 that lies across two lines takes twice as long. Numba's own arrays begin at a multiple of 32 bytes.
    """
    room = np.empty(count + CACHE_LINE // 4, np.float32)
    skip = -room.ctypes.data % CACHE_LINE // 4
    return room[skip : skip + count]


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
