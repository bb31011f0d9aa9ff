"""What encoder and decoder share: weights by name, and taps for looking at what flows between the operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qwenaudio_np.errors import NumericsError
from qwenaudio_np.ops import Array, Weight

Weights = Mapping[str, Weight]
Tap = Callable[[str, Array], None]  # called with the name and value of everything worth looking at


def ignore(name: str, value: Array) -> None:
    """The tap that is used when nobody looks."""


def prefixed(prefix: str, tap: Tap) -> Tap:
    """A tap that puts `prefix` before every name."""
    return lambda name, value: tap(prefix + name, value)


def under(prefix: str, weights: Weights) -> Callable[[str], Weight]:
    """The weights below a prefix, by their short names."""
    return lambda name: weights[prefix + name]


def split_heads(x: Array, heads: int) -> Array:
    """[length, heads * head_dim] -> [heads, length, head_dim], a view"""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def require_finite(row: Array, place: str) -> None:
    """NaN or infinity in `row` means broken weights; saying so beats printing the token that NaN happens to pick."""
    if not np.isfinite(row).all():
        raise non_finite(place)


def non_finite(place: str) -> NumericsError:
    """The error of activations that are not finite."""
    return NumericsError(f"non-finite activations after {place}; the checkpoint is damaged there, or its values overflow")
