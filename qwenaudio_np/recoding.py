"""Weights in another type than they are stored in, made while loading, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from qwenaudio_np.bfloat16 import to_bfloat16
from qwenaudio_np.ops import Array, Stored, Weight, widen
from qwenaudio_np.quantised import LANES, Quantised, empty_record
from qwenaudio_np.weight_plan import bits_of

Progress = Callable[[int, int], None]  # weights done so far, weights in all
Quantise = Callable[[Array, int], Quantised]  # `quantise` of a backend

VALUES = 1 << 22  # weights at once: 16 MB of float32, and a few times that while scales are searched


def recoded(arrays: Mapping[str, Stored], weights: str, quantise: Quantise, progress: Progress | None = None) -> dict[str, Weight]:
    """Every tensor as --weights `weights` has it, in memory; those that stay as they are stay mapped."""
    done, total = 0, sum(array.size for array in arrays.values())
    made: dict[str, Weight] = {}
    for name, array in arrays.items():
        for result, rows in _steps(array, name, weights, quantise):
            made[name] = result
            done += array.size // max(len(array), 1) * rows
            if progress:
                progress(done, total)
    return made


def _steps(array: Stored, name: str, weights: str, quantise: Quantise) -> Iterator[tuple[Weight, int]]:
    """(the result, rows just done) after each block of rows"""
    bits = bits_of(name, weights)
    if bits is None and weights in ("int8", "int4"):
        yield array, len(array)
        return
    result = empty_record(array.shape, bits) if bits else np.empty(array.shape, np.uint16 if weights == "bfloat16" else np.float32)
    step = max(1, VALUES * len(array) // max(array.size, 1) // LANES) * LANES
    wide = np.result_type(array.dtype, np.float32) if weights == "bfloat16" else np.dtype(np.float32)  # float64 is rounded once, not twice
    for start in range(0, len(array), step):
        rows = widen(array[start : start + step], wide)
        if isinstance(result, Quantised):
            for ending, part in quantise(rows, result.bits).parts.items():
                result.parts[ending][start // LANES :][: len(part)] = part
        else:
            result[start : start + step] = to_bfloat16(rows) if weights == "bfloat16" else rows
        yield result, len(rows)
