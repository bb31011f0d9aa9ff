"""Whisper's encoder in front of a decoder: the model as it stands before its first training step.

The encoder comes from a Whisper checkpoint, the decoder from a Qwen-1 text model or a Qwen-Audio one, as in section 3.2 of the
paper. Between them stands what neither has: the projection, the two rows around a clip, and rows of the vocabulary's tables for the
audio tokens. Those are made from a seed with the integer hash of random_values.py, by its rule for matrices: uniform within
+- 2^-k, k = floor(log2(fan_in) / 2); the projection's bias is zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from qwenaudio_np.config import parse_config
from qwenaudio_np.errors import MismatchError, shown
from qwenaudio_np.names import AUDIO_PREFIX, EMBEDDING, OUTPUT_HEAD, Shape, expected_tensors
from qwenaudio_np.safetensors_file import DTYPES
from qwenaudio_np.special_tokens import AUDIO_START, SPECIAL_TOKENS
from qwenaudio_np.vocabulary import VOCABULARY_FILE

from .random_values import random_pieces
from .recipe import Recipe, audio_section, require_tensors
from .weight_source import SourceTensor
from .weight_types import rounded

ROW_MULTIPLE = 64  # a grown vocabulary is rounded up to this


def graft(decoder: Recipe, encoder: Recipe, dims: dict[str, int], seed: int) -> Recipe:
    """The joint recipe. An encoder that the decoder's checkpoint had is replaced, projection included.

    Raises MismatchError where the sizes cannot be those of one model.
    """
    fields = _config(decoder, dims)
    config = parse_config(fields)
    tensors = {name: tensor for name, tensor in decoder.tensors.items() if not name.startswith(AUDIO_PREFIX)}
    dtype = tensors[EMBEDDING].dtype
    for table in (EMBEDDING, OUTPUT_HEAD):
        if table in tensors and tensors[table].shape[0] < config.text.vocab_size:
            tensors[table] = _grown(tensors[table], table, config.text.vocab_size, seed)
    tensors |= encoder.tensors
    expected = expected_tensors(config)
    fresh = [name for name in expected if name not in tensors and name.startswith(AUDIO_PREFIX)]
    tensors |= {name: _fresh(name, dtype, expected[name], seed) for name in fresh}
    dropped = [name for name in decoder.tensors if name.startswith(AUDIO_PREFIX)]
    return replace(
        decoder,
        config=fields,
        tensors=require_tensors(tensors, expected, {OUTPUT_HEAD: (config.text.vocab_size, config.text.hidden_size)}),
        dropped=(*decoder.dropped, *dropped, *encoder.dropped),
        fresh=tuple(fresh),
    )


def _config(decoder: Recipe, dims: dict[str, int]) -> dict[str, Any]:
    """config.json of the decoder with an `audio` section, and a vocabulary with room for the audio tokens."""
    ranks = decoder.copied[VOCABULARY_FILE].count(b"\n") + (not decoder.copied[VOCABULARY_FILE].endswith(b"\n"))
    start, needed = ranks + SPECIAL_TOKENS.index(AUDIO_START), ranks + len(SPECIAL_TOKENS)
    stated = (decoder.config.get("audio") or {}).get("audio_start_id", start)
    if stated != start:
        raise MismatchError(f"audio_start_id is {shown(stated)}, {ranks} ranks put it at {start}; do they belong together?")
    defaults = {"avg_pool": True, "add_audio_bos_eos_token": True}
    audio = defaults | (decoder.config.get("audio") or {}) | audio_section(dims)
    audio |= {"output_dim": decoder.config["hidden_size"], "audio_start_id": start}
    rows = decoder.config["vocab_size"]
    if rows < needed:
        rows = -(-needed // ROW_MULTIPLE) * ROW_MULTIPLE
    return decoder.config | {"vocab_size": rows, "audio": audio}


def _grown(tensor: SourceTensor, name: str, rows: int, seed: int) -> SourceTensor:
    """A table [old, hidden] with new rows behind the old ones, [rows, hidden]."""
    added = _fresh(name + ".added", tensor.dtype, (rows - tensor.shape[0], *tensor.shape[1:]), seed)
    return SourceTensor(tensor.dtype, (rows, *tensor.shape[1:]), lambda: chain(tensor.rows(), added.rows()))


def _fresh(name: str, dtype: str, shape: Shape, seed: int) -> SourceTensor:
    """A tensor made here, in blocks of whole rows; zero if it is a bias."""

    def rows() -> Iterator[np.ndarray]:
        if name.endswith(".bias"):
            yield np.zeros(shape, DTYPES[dtype])
            return
        width, held = math.prod(shape[1:]), np.empty(0, DTYPES[dtype])
        # The suffix keeps the hash's special rules (loud embeddings) away: every matrix made here follows the one for matrices.
        for piece in random_pieces(name.removesuffix(".added") + ".added", shape, "F32", seed):
            held = np.concatenate([held, rounded(piece, "F32", dtype, name)])
            whole = len(held) // width * width
            yield held[:whole].reshape(-1, *shape[1:])
            held = held[whole:]

    return SourceTensor(dtype, shape, rows)
