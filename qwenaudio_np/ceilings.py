"""What this machine can do at most, measured now: the figures that speed is compared with.

Other programs share a machine, so only ratios within one run mean anything, and of several timings the median counts.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

READ_BYTES = 1 << 29  # far beyond any cache
PAUSE = 0.5  # seconds; threads of BLAS go on spinning for a while after a product, and would slow down what is timed next


def median_seconds(function: Callable[[], object], repeats: int, pause: float = 0.0) -> float:
    """The median of `repeats` timed calls, after one that is not timed (it may compile) and a pause."""
    function()
    time.sleep(pause)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def memory_ceiling(threads: int | None = None, repeats: int = 7) -> float:
    """Bytes per second of plain reading: each thread takes the maximum of its share of a large array."""
    workers = threads or os.cpu_count() or 1
    parts = np.array_split(np.ones(READ_BYTES // 8, np.int64), workers)
    with ThreadPoolExecutor(workers) as pool:
        return READ_BYTES / median_seconds(lambda: list(pool.map(np.max, parts)), repeats, PAUSE)


def product_ceiling(rows: int, inner: int, columns: int, repeats: int = 5) -> float:
    """Operations per second of NumPy's float32 product [rows, inner] x [inner, columns], with the threads BLAS has."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, inner), np.float32), rng.standard_normal((columns, inner), np.float32)
    return 2 * rows * inner * columns / median_seconds(lambda: x @ w.T, repeats, PAUSE)
