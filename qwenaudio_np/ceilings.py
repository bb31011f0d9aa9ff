"""What this machine can do at most, measured now: the figures that speed is compared with.

Other programs share a machine, so only ratios within one run mean anything, and of several timings the median counts.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

T = TypeVar("T")

READ_BYTES = 1 << 29  # far beyond any cache
PAUSE = 0.5  # seconds; threads of BLAS go on spinning for a while after a product, and would slow down what is timed next


def median_seconds(function: Callable[[], object], repeats: int, pause: float = 0.0) -> float:
    """The median of `repeats` timed calls, after one that is not timed (it may compile) and a pause."""
    function()
    time.sleep(pause)
    return statistics.median(_seconds(function) for _ in range(repeats))


class Ceilings:
    """Plain memory reading, and NumPy's float32 product [rows, inner] x [inner, columns], measured beside what is compared with them.

    On a machine that others use both change within seconds, by a half and more, so a figure is related to what was measured around it.
    """

    def __init__(self, rows: int, inner: int, columns: int, threads: int | None = None) -> None:
        rng = np.random.default_rng(0)
        self.x, self.w = rng.standard_normal((rows, inner), np.float32), rng.standard_normal((columns, inner), np.float32)
        self.threads = threads

    def reading(self) -> float:
        """Bytes per second now. What is read is there only meanwhile: it must not take memory from what is measured."""
        return memory_ceiling(self.threads, 1, 0.0)

    def product(self) -> float:
        """Operations per second now, with the threads that BLAS has."""
        return 2 * self.x.size * len(self.w) / statistics.median(_seconds(lambda: self.x @ self.w.T) for _ in range(3))

    def beside(self, run: Callable[[], T]) -> tuple[T, float, float]:
        """What `run` gives, and the means of `reading` and `product` right before and after it."""
        product = self.product()
        time.sleep(PAUSE)
        reading = self.reading()
        told = run()
        return told, (reading + self.reading()) / 2, (product + self.product()) / 2


def _seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def memory_ceiling(threads: int | None = None, repeats: int = 7, pause: float = PAUSE) -> float:
    """Bytes per second of plain reading: each thread takes the maximum of its share of a large array."""
    workers = threads or os.cpu_count() or 1
    parts = np.array_split(np.ones(READ_BYTES // 8, np.int64), workers)
    with ThreadPoolExecutor(workers) as pool:
        return READ_BYTES / median_seconds(lambda: list(pool.map(np.max, parts)), repeats, pause)


def product_ceiling(rows: int, inner: int, columns: int, repeats: int = 5) -> float:
    """Operations per second of NumPy's float32 product [rows, inner] x [inner, columns], with the threads BLAS has."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, inner), np.float32), rng.standard_normal((columns, inner), np.float32)
    return 2 * rows * inner * columns / median_seconds(lambda: x @ w.T, repeats, PAUSE)
