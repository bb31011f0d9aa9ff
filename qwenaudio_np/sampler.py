"""Logits -> one token id: greedy, or drawn with temperature, top-k and top-p."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qwenaudio_np.errors import NumericsError, UsageError, value_of
from qwenaudio_np.ops import Array

Sampler = Callable[[Array], int]


@dataclass(frozen=True)
class Sampling:
    """temperature 0: greedy, the rest is ignored. top_k 0 and top_p 0 or 1: off (as in the original). seed None: not repeatable."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(_is_number(self.temperature) and self.temperature >= 0, "--temperature", self.temperature, "0 (greedy) or more")
        _require(is_whole(self.top_k) and self.top_k >= 0, "--top-k", self.top_k, "a whole number, 0 (off) or more")
        _require(_is_number(self.top_p) and 0.0 <= self.top_p <= 1.0, "--top-p", self.top_p, "from 0 to 1 (both off)")
        _require(self.seed is None or (is_whole(self.seed) and self.seed >= 0), "--seed", self.seed, "a whole number, 0 or more")


def make_sampler(sampling: Sampling) -> Sampler:
    """The function that picks an id from logits [vocabulary]; with a seed, equal logits give equal draws on one machine.

    Between machines np.exp may differ in the last bit, and so, rarely, a draw.
    """
    if float(sampling.temperature) == 0.0:  # a fraction may be less than any float
        return greedy
    generator = np.random.Generator(np.random.PCG64(sampling.seed))
    return lambda logits: _draw(distribution(logits, sampling), generator.random())


def greedy(logits: Array) -> int:
    """The best id; of equal ones the lowest."""
    _check(logits)
    return int(np.argmax(logits))


def distribution(logits: Array, sampling: Sampling) -> Array:
    """Probabilities [vocabulary] in float64 after temperature, then top-k, then top-p: what is cut off is zero."""
    _check(logits)
    wide = logits.astype(np.float64)
    scaled = (wide - wide.max()) / float(sampling.temperature)  # maximum off first: a tiny temperature then gives exp(-inf) = 0, not NaN
    if 0 < sampling.top_k < len(scaled):
        scaled[np.argsort(-scaled, kind="stable")[sampling.top_k :]] = -np.inf
    chances = np.exp(scaled)
    chances /= chances.sum()
    if 0.0 < sampling.top_p < 1.0:
        order = np.argsort(-chances, kind="stable")
        before = np.cumsum(chances[order]) - chances[order]  # mass of everything better; the best one always stays
        chances[order[before >= sampling.top_p]] = 0.0
        chances /= chances.sum()
    return chances


def _draw(chances: Array, uniform: float) -> int:
    """Inverse of the cumulative distribution at `uniform` in [0, 1)."""
    cumulative = np.cumsum(chances)
    return int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))


def _check(logits: Array) -> None:
    """NaN would make every comparison false and so pick id 0; -inf alone is allowed, for forbidden ids."""
    if np.isnan(logits).any() or not np.isfinite(logits.max(initial=-np.inf)):
        raise NumericsError("the logits hold NaN, +infinity or nothing finite; the checkpoint is damaged or its values overflow")


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, numbers.Real) and math.isfinite(value)
    except OverflowError:  # a whole number past every float
        return False


def is_whole(value: object) -> bool:
    """A whole number, one of NumPy's too."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _require(good: bool, option: str, value: object, expected: str) -> None:
    if not good:
        raise UsageError(f"{option} is {value_of(value)}, expected {expected}")
