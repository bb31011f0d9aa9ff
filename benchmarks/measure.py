"""What every benchmark here shares: timing, the machine's own ceilings, validation, tables and JSON lines.

A figure is printed only for an implementation whose result was first compared with ops.py. Times are medians. The ceilings are
measured in the same run, because other programs share the machine: only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

READ_BYTES = 1 << 29  # far beyond any cache


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """The median of `repeats` timed calls, after one that is not timed (it may compile)."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def memory_ceiling(threads: int, repeats: int = 7) -> float:
    """Bytes per second of plain reading: each thread takes the maximum of its share of a large array."""
    stream = np.ones(READ_BYTES // 8, np.int64)
    parts = np.array_split(stream, threads)
    with ThreadPoolExecutor(threads) as pool:
        return READ_BYTES / median_seconds(lambda: list(pool.map(np.max, parts)), repeats)


def product_ceiling(rows: int, inner: int, columns: int, repeats: int = 5) -> float:
    """Operations per second of NumPy's float32 product [rows, inner] x [inner, columns], with the threads BLAS has."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, inner), np.float32), rng.standard_normal((columns, inner), np.float32)
    return 2 * rows * inner * columns / median_seconds(lambda: x @ w.T, repeats)


def validate(name: str, got: np.ndarray, want: np.ndarray, tolerance: float) -> float:
    """Largest error over the RMS of what ops.py computes; raises SystemExit above `tolerance`, so that nothing wrong is timed."""
    error = float(np.abs(got.astype(np.float64) - want).max() / np.sqrt(np.square(want, dtype=np.float64).mean()))
    if not error <= tolerance:
        raise SystemExit(f"{name}: error {error:.1e} of RMS, expected at most {tolerance:.1e}; not timed")
    return error


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """float32 -> bfloat16 as uint16, rounded to nearest, halves to even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def arguments(description: str) -> argparse.Namespace:
    """The options all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=None, help="threads for kernels and BLAS (default: all)")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls per figure; the median counts (default 7)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    return parser.parse_args()


def report(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Rows of equal keys as JSON lines, or as a table for people."""
    if as_json:
        for row in rows:
            print(json.dumps({**row, "machine": platform.processor() or platform.machine(), "numpy": np.__version__}))
        return
    cells = [list(rows[0])] + [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
