"""The memory that results lie in: used again, and never while somebody looks at it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numba
import numpy as np
import pytest

from tests.kernel_parts import part

arrays = part("arrays")
arrays_aligned = arrays.aligned  # what is inlined can be called from compiled code alone
ROWS = -(-arrays.LARGE // 400)  # of 100 float32: as little as is kept


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    gc.collect()
    arrays._kept.clear()
    yield
    arrays._kept.clear()


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_memory_that_is_free_is_used_again() -> None:
    first = arrays.empty(ROWS + 1, 100)
    place = address(first)
    assert first.shape == (ROWS + 1, 100) and first.dtype == np.float32 and first.flags.writeable and first.flags.c_contiguous
    del first
    again = arrays.empty(ROWS, 100)
    assert address(again) == place and again.shape == (ROWS, 100)
    assert address(arrays.empty(ROWS, 100)) != place


def test_a_view_keeps_its_memory() -> None:
    whole = arrays.empty(ROWS + 1, 100)
    view = whole.T[3:5].reshape(2, -1)[:, ::2]
    column = whole[:, 7]
    whole[:] = 1
    del whole
    for _ in range(3):
        arrays.empty(ROWS + 1, 100)[:] = 2
    assert (column == 1).all() and view.shape[0] == 2


def test_a_small_array_is_an_ordinary_one() -> None:
    assert arrays.empty(3, 5).base is None and arrays.empty(0, 5).shape == (0, 5) and not arrays._kept


def test_memory_much_larger_than_what_is_asked_for_is_left_alone() -> None:
    del (large := {"": arrays.empty(3 * ROWS, 100)})[""]
    assert large == {} and len(arrays._kept) == 1
    arrays.empty(ROWS + 1, 100)
    assert len(arrays._kept) == 2


def test_no_more_is_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "KEPT", 2 * arrays.LARGE + 8000)
    several = [arrays.empty(ROWS + 1, 100) for _ in range(5)]
    last = address(several[-1])
    while several:
        del several[0]
    assert len(arrays._kept) == 2
    assert any(0 <= last - address(kept) < arrays.CACHE_LINE for kept in arrays._kept.values())  # what came last is wanted soonest


def test_results_and_buffers_begin_with_a_cache_line() -> None:
    buffer_of = numba.njit(lambda count: arrays_aligned(count))
    for count in (1, 16, 1000):
        assert address(arrays.empty(ROWS + count, 100)) % arrays.CACHE_LINE == 0
        buffer = buffer_of(count)
        assert address(buffer) % arrays.CACHE_LINE == 0 and buffer.shape == (count,) and buffer.dtype == np.float32
