"""What this machine can do at most, measured now: the figures that speed is compared with.

Other programs share a machine, so only ratios within one run mean anything, and of several timings the median counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from qwenaudio_np.ops import Array
from qwenaudio_np.threads import usable_cores

T = TypeVar("T")

READ_BYTES = 1 << 29  # far beyond any cache
PAUSE = 0.5  # seconds; threads of BLAS go on spinning for a while after a product, and would slow down what is timed next


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def median_seconds(function: Callable[[], object], repeats: int, pause: float = 0.0) -> float:
    """The median of `repeats` timed calls, after one that is not timed (it may compile) and a pause."""
    function()
    time.sleep(pause)
    return statistics.median(seconds(function) for _ in range(repeats))


class Reading:
    """Plain memory reading, to be called and timed: each thread takes the maximum of its share of a large array."""

    def __init__(self, threads: int | None = None) -> None:
        workers = threads or usable_cores()
        self.amount = READ_BYTES
        self._parts = np.array_split(np.ones(READ_BYTES // 8, np.int64), workers)
        self._pool = ThreadPoolExecutor(workers)  # its threads end with it

    def __call__(self) -> list[np.int64]:
        """Read it all once: `amount` bytes."""
        return list(self._pool.map(np.max, self._parts))


class Product:
    """NumPy's float32 product [rows, inner] x [inner, columns], to be called and timed, with the threads BLAS has."""

    def __init__(self, rows: int, inner: int, columns: int) -> None:
        rng = np.random.default_rng(0)
        self.amount = 2 * rows * inner * columns
        self._x, self._w = rng.standard_normal((rows, inner), np.float32), rng.standard_normal((columns, inner), np.float32)

    def __call__(self) -> Array:
        """Multiply once: `amount` operations."""
        return self._x @ self._w.T


def around(ceiling: Callable[[], float], run: Callable[[], T]) -> tuple[T, float]:
    """What `run` gives, and the mean of what `ceiling` says right before and after it."""
    before = ceiling()
    told = run()
    return told, (before + ceiling()) / 2


class Ceilings:
    """Plain memory reading, and NumPy's float32 product [rows, inner] x [inner, columns], measured beside what is compared with them.

    On a machine that others use both change within seconds, by a half and more, so a figure is related to what was measured around it.
    """

    def __init__(self, rows: int, inner: int, columns: int, threads: int | None = None) -> None:
        self._multiply = Product(rows, inner, columns)
        self.threads = threads

    def reading(self) -> float:
        """Bytes per second now. What is read is there only meanwhile: it must not take memory from what is measured."""
        read = Reading(self.threads)
        return read.amount / median_seconds(read, 1)

    def product(self) -> float:
        """Operations per second now, with the threads that BLAS has."""
        return self._multiply.amount / statistics.median(seconds(self._multiply) for _ in range(3))

    def beside(self, run: Callable[[], T]) -> tuple[T, float, float]:
        """What `run` gives, and the means of `reading` and `product` right before and after it."""

        def pause_and_read() -> tuple[T, float]:
            time.sleep(PAUSE)
            return around(self.reading, run)

        (told, reading), product = around(self.product, pause_and_read)
        return told, reading, product
