"""A folder -> a QwenAudio, ready to answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qwenaudio_np import backends
from qwenaudio_np.cache import KEPT, usually_kept
from qwenaudio_np.checkpoint import load_weights
from qwenaudio_np.config import ModelConfig, load_config
from qwenaudio_np.embedded import model_folder
from qwenaudio_np.errors import MismatchError, UsageError, kind_of, require_text, shown
from qwenaudio_np.model import QwenAudio
from qwenaudio_np.recoding import Progress
from qwenaudio_np.special_tokens import AUDIO_START, SPECIAL_TOKENS, TEXT_TOKENS
from qwenaudio_np.threads import limit_blas
from qwenaudio_np.tokenizer import Tokenizer
from qwenaudio_np.vocabulary import VOCABULARY_FILE

DTYPES = {"float32": np.float32, "float64": np.float64}


def load(
    path: str | Path | None = None,
    backend: str = "numba",
    dtype: str = "float32",
    threads: int | None = None,
    force: bool = False,
    weights: str | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], object] | None = None,
    kv: str | None = None,
) -> QwenAudio:
    """Open a checkpoint folder (config.json, qwen.tiktoken, safetensors).

    path: default that of the environment variable QWENAUDIO_MODEL, else the small embedded model's.
    backend: "numba" (fast) or "reference" (readable NumPy). dtype: type of all arithmetic, "float32" or "float64"; the weights
    stay as stored and memory-mapped. threads: for kernels and NumPy's matrix products, of this whole process: the latest load counts
    for all models (default: all cores); a ThreadsWarning says so where NumPy cannot be held to it. force: load even where memory looks
    too small. weights: "float32", "bfloat16", "int8" or "int4" converts them while loading (default: as stored), telling
    `progress` how many of how many are done. notice: called with a line when kernels are compiled for the first time.
    kv: "float32" or "bfloat16", how keys and values of past positions are kept (default: as `dtype`, but in
    bfloat16 beside weights of 8 or 4 bits in float32 arithmetic).
    Raises a QwenAudioError that says what is wrong with the folder.
    """
    require_text({"backend": backend, "dtype": dtype, "weights": weights, "kv": kv})
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"path is {kind_of(path)}, expected a folder")
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {shown(dtype)}, expected float32 or float64")
    if kv is not None and kv not in KEPT:
        raise UsageError(f"kv is {shown(kv)}, expected float32 or bfloat16")
    asked = None if kv is None else KEPT[kv]
    path = model_folder(path)
    limit_blas(threads)
    ops = backends.get(backend, threads, notice)
    config = load_config(path)
    tokenizer = Tokenizer.from_file(Path(path) / VOCABULARY_FILE, SPECIAL_TOKENS if config.audio else TEXT_TOKENS)
    check_vocabulary(config, tokenizer)
    loaded = load_weights(
        path, config, dtype=DTYPES[dtype], kv=asked, force=force, weights=weights, progress=progress, quantise=ops.quantise
    )
    kept = usually_kept(DTYPES[dtype], loaded.quantised) if asked is None else np.dtype(asked)
    labels = {"model": str(path), "backend": backend, "weights": loaded.label, "kv": "bfloat16" if kept == np.uint16 else str(kept)}
    return QwenAudio(config, loaded, tokenizer, ops, DTYPES[dtype], labels, kept)


def check_vocabulary(config: ModelConfig, tokenizer: Tokenizer) -> None:
    """The vocabulary file decides where the special ids begin; config.json must agree, or sound lands on the wrong tokens."""
    if config.audio and config.audio.audio_start_id != (start := tokenizer.special_ids[AUDIO_START]):
        raise MismatchError(
            f"config.json says audio_start_id {config.audio.audio_start_id}, but with the {tokenizer.n_ranks} ranks of {VOCABULARY_FILE} "
            f"{AUDIO_START} is {start}; the two files are not of one checkpoint, or one is cut"
        )
    if tokenizer.n_vocab > config.text.vocab_size:
        raise MismatchError(
            f"the vocabulary needs {tokenizer.n_vocab} ids but config.json has vocab_size {config.text.vocab_size}; "
            "the two files are not of one checkpoint"
        )
