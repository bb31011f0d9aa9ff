"""The keys and values of every position already seen, so that a new token costs one row, not all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from qwenaudio_np.bfloat16 import to_bfloat16
from qwenaudio_np.config import TextConfig
from qwenaudio_np.ops import Array, Stored

KEPT = {"float32": np.float32, "bfloat16": np.uint16}  # what keys and values can be kept as: its name, and the type of the array
FIRST_CAPACITY = 256  # positions; doubled whenever it is full, so that growing copies each row about once


def usually_kept(dtype: DTypeLike, quantised: bool) -> np.dtype:
    """What keys and values are kept as where nobody says: as the type of the arithmetic, but beside quantised weights bfloat16.

    That moves the embedded model's logits by 0.04 % of their RMS, which int8 weights have moved by 0.8 % already, int4 by 5 %. In float64
    nothing is rounded: it is there to be right.
    """
    return np.dtype(np.uint16 if quantised and np.dtype(dtype) == np.float32 else dtype)


class KVCache:
    """Keys (after rotary) and values of all layers, `length` positions of them.

    Each layer holds two arrays [heads, capacity, head_dim] of `dtype`; `append` returns views of the filled part. uint16 stands for
    bfloat16, half the memory: new keys and values are rounded before anything reads them, in prefill and decoding alike.
    `ntk_alpha` is that of the prefill which began the cache: the original keeps it while decoding, even across seq_length.
    """

    def __init__(self, config: TextConfig, dtype: np.dtype | type = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self.length = 0
        self.ntk_alpha = 1.0
        self._limit = config.max_position_embeddings
        shape = (config.num_attention_heads, 0, config.head_dim)
        self._keys: list[Stored] = [np.empty(shape, self.dtype) for _ in range(config.num_hidden_layers)]
        self._values: list[Stored] = [np.empty(shape, self.dtype) for _ in range(config.num_hidden_layers)]

    def append(self, layer: int, k: Array, v: Array) -> tuple[Stored, Stored]:
        """Write k and v [heads, new, head_dim] behind the first `length` positions of `layer`; return all keys and values
        [heads, length + new, head_dim]. `length` itself moves on only with `advance`, once all layers have been written."""
        total = self.length + k.shape[1]
        keys, values = self.room(layer, k.shape[1])
        halved = self.dtype == np.uint16
        keys[:, self.length : total] = to_bfloat16(k) if halved else k
        values[:, self.length : total] = to_bfloat16(v) if halved else v
        return keys[:, :total], values[:, :total]

    def room(self, layer: int, new: int) -> tuple[Stored, Stored]:
        """The arrays of keys and values of one layer [heads, capacity, head_dim], with room for `new` positions behind `length`."""
        if self.length + new > self._keys[layer].shape[1]:
            self._grow(layer, self.length + new)
        return self._keys[layer], self._values[layer]

    def advance(self, count: int) -> None:
        """Count `count` more positions as seen."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget everything from position `length` on."""
        self.length = min(self.length, length)

    def view(self, layer: int) -> tuple[Stored, Stored]:
        """Keys and values of one layer, [heads, length, head_dim] each."""
        return self._keys[layer][:, : self.length], self._values[layer][:, : self.length]

    @property
    def nbytes(self) -> int:
        """Bytes taken, spare capacity included."""
        return sum(array.nbytes for array in self._keys + self._values)

    def _grow(self, layer: int, needed: int) -> None:
        capacity = max(FIRST_CAPACITY, self._keys[layer].shape[1])
        while capacity < needed:
            capacity *= 2
        capacity = max(needed, min(capacity, self._limit))
        for arrays in (self._keys, self._values):
            old = arrays[layer]
            arrays[layer] = np.empty((old.shape[0], capacity, old.shape[2]), self.dtype)
            arrays[layer][:, : self.length] = old[:, : self.length]


@dataclass
class Past:
    """The inputs [positions, hidden] whose keys and values a cache holds: what a later prompt may begin with."""

    inputs: Array
    cache: KVCache

    def shared(self, x: Array, ntk_alpha: float) -> int:
        """How many of the first rows of x [length, hidden] are in the cache already, but never all: the last one's output is wanted.

        Inputs are compared, not ids: a clip that is heard a little differently beside a longer one (`visible_frames`) is found out.
        Another alpha turns every key differently, and nothing is shared.
        """
        if self.cache.ntk_alpha != ntk_alpha:
            return 0
        n = min(len(x) - 1, len(self.inputs), self.cache.length)
        differs = (x[:n] != self.inputs[:n]).any(axis=1)
        return int(differs.argmax()) if differs.any() else n


@dataclass
class Memory:
    """What a conversation keeps from turn to turn besides its words."""

    past: Past | None = None
    sounds: dict[Any, Array] = field(default_factory=dict)  # encoded clips, see QwenAudio.encode_audio

    def forget_all_but(self, clips: Sequence[Any]) -> None:
        """Let go of the sounds of turns that have left the window."""
        self.sounds = {key: sound for key, sound in self.sounds.items() if key[0] in clips}
