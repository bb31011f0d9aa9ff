"""Checkpoints with made-up weights in the original's own layout: for tests, for timing, and to compare implementations.

    tiny    2 + 2 layers, a few hundred thousand weights: every part of the architecture, in a second
    layer   the published widths and vocabulary with 2 encoder and 2 decoder layers
    full    the shape of the published model: 8.4 billion weights, 16.8 GB in bfloat16

The values are those of random_values.py; they depend on seed, tensor name and index alone. Tensors are made and written
a piece at a time, so memory does not grow with the model.

The vocabulary of `tiny` is learned from vocabulary_text.txt. The larger sizes need as many ranks as the published
vocabulary, 151,643, so that all ids (`<audio>` is 155163) agree with it; that file is not ours to ship, so behind the
learned tokens stand filler tokens: byte FF and three bytes 80 to BF that count up. FF never occurs in UTF-8, so no text
is ever encoded to a filler token; decoded it is the replacement character.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenaudio_np.config import ModelConfig, parse_config
from qwenaudio_np.errors import ResourceError, UsageError, shown
from qwenaudio_np.names import expected_tensors
from qwenaudio_np.special_tokens import AUDIO_START, SPECIAL_TOKENS
from qwenaudio_np.vocabulary import VOCABULARY_FILE

from .progress import Progress, counted
from .random_values import random_pieces
from .recipe import OWN_FILES
from .request import require_paths
from .safetensors_writer import TensorSpec, plan_shards, write_shards
from .vocabulary import learn_vocabulary, write_vocabulary
from .workplace import left_over, require_disk, workplace

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
LEARNED_RANKS = 512  # 256 bytes and as many merges
PUBLISHED_RANKS = 151_643
TOKENIZER_FILES = 4_000_000  # bytes, generous: vocabulary and configs of the largest size


@dataclass(frozen=True)
class Size:
    """What differs between the sizes. Widths: hidden and inner of the decoder, state of the encoder."""

    ranks: int
    vocab_size: int  # rows of wte and lm_head: ranks, special tokens, padding
    decoder_layers: int
    hidden: int
    decoder_heads: int
    inner: int
    encoder_layers: int
    state: int
    encoder_heads: int
    shard_bytes: int


SIZES = {
    "tiny": Size(LEARNED_RANKS, 4096, 2, 64, 4, 192, 2, 48, 3, 1_000_000),
    "layer": Size(PUBLISHED_RANKS, 155_947, 2, 4096, 32, 11_008, 2, 1280, 20, 2_000_000_000),
    "full": Size(PUBLISHED_RANKS, 155_947, 32, 4096, 32, 11_008, 32, 1280, 20, 2_000_000_000),
}


def write_random_checkpoint(
    folder: str | Path, size: str = "tiny", seed: int = 0, dtype: str = "bfloat16", progress: Progress | None = None, force: bool = False
) -> ModelConfig:
    """Write a checkpoint of SIZES[size] with weights stored as `dtype` to `folder`, which appears whole or not at all.

    `force` replaces an existing checkpoint, never a folder with anything else in it. Returns the config that was written.
    Raises UsageError (unknown size or type, seed outside 0 .. 2^64 - 1, folder in use or without a name), ResourceError (disk).
    """
    require_paths(folder=folder)
    fields, generation = config_fields(_known("size", size, SIZES), dtype), generation_fields(SIZES[size])
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed is {seed}, expected 0 to 2^64 - 1")
    config = parse_config(fields, generation)
    tensors = [TensorSpec(name, _known("dtype", dtype, DTYPES), shape) for name, shape in expected_tensors(config).items()]
    target = Path(os.path.realpath(folder))  # Path.resolve stops at links that lead in a circle
    total = sum(tensor.nbytes for tensor in tensors)
    require_disk(_existing(target.parent), total + TOKENIZER_FILES - left_over(target))
    _make_parent(target)
    with workplace(target, OWN_FILES, force) as new:
        _write_json(new / "config.json", fields)
        _write_json(new / "generation_config.json", generation)
        _write_json(new / "tokenizer_config.json", {"model_max_length": 8192, "tokenizer_class": "QWenTokenizer"})
        write_vocabulary(new / VOCABULARY_FILE, random_vocabulary(SIZES[size].ranks))
        shards = plan_shards(tensors, SIZES[size].shard_bytes)
        write_shards(new, shards, lambda spec: random_pieces(spec.name, spec.shape, spec.dtype, seed), counted(progress, total))
    return config


def config_fields(size: Size, dtype: str = "bfloat16") -> dict[str, Any]:
    """config.json with the original's field names; those left out have no meaning for the arithmetic."""
    return {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "torch_dtype": dtype,
        "vocab_size": size.vocab_size,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.decoder_layers,
        "num_attention_heads": size.decoder_heads,
        "kv_channels": size.hidden // size.decoder_heads,
        "intermediate_size": 2 * size.inner,  # the sum of w1 and w2
        "layer_norm_epsilon": 1e-6,
        "max_position_embeddings": 8192,
        "seq_length": 2048,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "no_bias": True,
        "tie_word_embeddings": False,
        "audio": {
            "n_mels": 80,
            "n_ctx": 1500,
            "n_state": size.state,
            "n_head": size.encoder_heads,
            "n_layer": size.encoder_layers,
            "output_dim": size.hidden,
            "avg_pool": True,
            "add_audio_bos_eos_token": True,
            "audio_start_id": size.ranks + SPECIAL_TOKENS.index(AUDIO_START),
        },
    }


def generation_fields(size: Size) -> dict[str, Any]:
    """generation_config.json of the chat model. `<|endoftext|>` is the first token behind the ranks."""
    return {
        "chat_format": "chatml",
        "eos_token_id": size.ranks,
        "pad_token_id": size.ranks,
        "max_window_size": 6144,
        "max_new_tokens": 512,
        "do_sample": True,
        "top_k": 0,
        "top_p": 0.5,
    }


def random_vocabulary(ranks: int) -> list[bytes]:
    """Tokens by rank: 256 bytes, merges learned from vocabulary_text.txt, then fillers up to `ranks`."""
    text = Path(__file__).with_name("vocabulary_text.txt").read_text(encoding="utf-8")
    learned = learn_vocabulary(text, min(ranks, LEARNED_RANKS))
    return learned + [_filler(i) for i in range(ranks - len(learned))]


def _filler(i: int) -> bytes:
    """A token that no text contains: FF and `i` in three digits of base 64, each 80 to BF."""
    return bytes((0xFF, 0x80 + (i >> 12 & 63), 0x80 + (i >> 6 & 63), 0x80 + (i & 63)))


def _known(what: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise UsageError(f"unknown {what} {shown(name)}, expected one of: {', '.join(table)}")
    return table[name]


def _existing(folder: Path) -> Path:
    """The nearest folder upwards that exists. Raises UsageError if it is a file."""
    if not folder.exists() and folder != folder.parent:
        return _existing(folder.parent)
    if not folder.is_dir():
        raise UsageError(f"{shown(folder)} is not a folder; choose another place")
    return folder


def _make_parent(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise ResourceError(f"cannot make {shown(target.parent)}: {(failure.strerror or 'unknown error').lower()}") from None


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
