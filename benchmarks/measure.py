"""What every benchmark here shares: validation, options, peers, tables and JSON lines. Timing and ceilings: qwenaudio_np/ceilings.py.

A figure is printed only for an implementation whose result was first compared with ops.py. Times are medians. Other programs share the
machine: so peers and ceilings are timed in the same rounds as ours, and ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qwenaudio_np.ceilings import median_seconds
from qwenaudio_np.options import whole_number


def validate(name: str, got: np.ndarray, want: np.ndarray, tolerance: float, typical: bool = False) -> float:
    """Largest error over the RMS of what ops.py computes; raises SystemExit above `tolerance`, so that nothing wrong is timed.

    typical: the RMS of the error instead, for weights of few bits, where the largest of many errors tells little.
    """
    errors = np.abs(got.astype(np.float64) - want)
    error = float((np.sqrt(np.square(errors).mean()) if typical else errors.max()) / np.sqrt(np.square(want, dtype=np.float64).mean()))
    if not error <= tolerance:
        raise SystemExit(f"{name}: error {error:.1e} of RMS, expected at most {tolerance:.1e}; not timed")
    return error


def in_turn(functions: Mapping[str, Callable[[], object]], repeats: int, pause: float, calls: int = 1) -> dict[str, list[float]]:
    """Seconds of every function in each of `repeats` rounds, in which all follow one another: what else the machine does hits them alike.

    A turn begins with a pause, for threads of the one before may spin on, and a call that is not timed; the median of `calls` more counts.
    Of what takes a few milliseconds the first calls after a pause are slower: it wants more of them.
    """
    rounds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            time.sleep(pause)
            rounds[name].append(median_seconds(function, calls))
    return rounds


def ratio(more: list[float], less: list[float]) -> float:
    """The median, over the rounds, of seconds of one thing over seconds of another; NaN if one of them was not timed."""
    return statistics.median(a / b for a, b in zip(more, less, strict=True)) if more and less else float("nan")


def arguments(description: str) -> argparse.Namespace:
    """The options all benchmarks have, as given."""
    return parser(description).parse_args()


def parser(description: str) -> argparse.ArgumentParser:
    """A parser of those options, for a benchmark that has more."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=whole_number(1), default=None, help="threads for kernels and BLAS (default: all)")
    made.add_argument("--repeats", type=whole_number(1), default=7, help="timed calls per figure; the median counts (default 7)")
    made.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    return made


def peer(module: str, name: str) -> Any | None:
    """The module of a peer; where it is not installed, None, and a line on stderr that says so. `name` is what people call it."""
    if importlib.util.find_spec(module) is None:
        print(f"{name} is not installed, so not compared (pip install '.[peers]')", file=sys.stderr)
        return None
    return importlib.import_module(module)


def report(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Rows of equal keys as JSON lines, or as a table for people."""
    if as_json:
        for row in rows:
            told = {name: None if value != value else value for name, value in row.items()}  # JSON has no NaN
            print(json.dumps({**told, "machine": platform.processor() or platform.machine(), "numpy": np.__version__}))
        return
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    """Three digits of a number; of NaN, which stands for what was not measured, nothing."""
    if value != value:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
