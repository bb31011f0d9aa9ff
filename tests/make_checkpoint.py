"""Small checkpoints with seeded random weights, for configs that the golden ones do not have; and opening any checkpoint for a test.

Names and shapes are written out here once more, so that a mistake in the package's own list shows. Values have the usual
1/sqrt(in) spread, norms stay near 1, so that every part of the network moves the logits.
"""

from __future__ import annotations

import base64
import functools
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

import qwenaudio_np
from qwenaudio_np.audio import Clip, clip_from_array
from qwenaudio_np.model import QwenAudio

Array = np.ndarray

TEXT = {
    "model_type": "qwen", "vocab_size": 3784, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 52,
    "layer_norm_epsilon": 1e-5, "max_position_embeddings": 600, "seq_length": 16, "rotary_emb_base": 10000, "rotary_pct": 1.0,
    "use_dynamic_ntk": True, "use_logn_attn": True, "tie_word_embeddings": False, "no_bias": True,
}  # fmt: skip
AUDIO = {
    "n_mels": 80, "n_ctx": 1500, "n_state": 16, "n_head": 2, "n_layer": 2, "avg_pool": True, "add_audio_bos_eos_token": True,
    "audio_start_id": 3776,
}  # fmt: skip
"""256 ranks, one for each byte, then 3522 special tokens, the last two of them `<audio>` and `</audio>`: ids 3776 and 3777."""
START, PLACEHOLDER, END = 3776, 256 + 208, 3777


def make_checkpoint(
    folder: Path,
    dtype: str = "float32",
    seed: int = 0,
    audio: Mapping[str, Any] | None = None,
    extra: Mapping[str, Array] | None = None,
    **text: Any,
) -> Path:
    """Write a checkpoint: `text` and `audio` override fields of the config, audio={"none": True} leaves the section out.

    `extra` replaces or adds tensors. dtype is how weights are stored: float32, float16, bfloat16 or float64.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {**TEXT, **text}
    if not (audio or {}).get("none"):
        config["audio"] = {**AUDIO, "output_dim": config["hidden_size"], **(audio or {})}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "qwen.tiktoken").write_bytes(b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256)))
    rng = np.random.default_rng(seed)
    tensors = {name: _values(rng, name, shape) for name, shape in shapes(config)}
    tensors.update(extra or {})
    _write_safetensors(folder / "model.safetensors", {name: _stored(values, dtype) for name, values in tensors.items()}, dtype)
    return folder


def shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a checkpoint."""
    hidden, half = config["hidden_size"], config["intermediate_size"] // 2
    yield "transformer.wte.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        for name, shape in {
            "ln_1.weight": (hidden,), "attn.c_attn.weight": (3 * hidden, hidden), "attn.c_attn.bias": (3 * hidden,),
            "attn.c_proj.weight": (hidden, hidden), "ln_2.weight": (hidden,), "mlp.w1.weight": (half, hidden),
            "mlp.w2.weight": (half, hidden), "mlp.c_proj.weight": (hidden, half),
        }.items():  # fmt: skip
            yield f"transformer.h.{i}.{name}", shape
    yield "transformer.ln_f.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)
    if "audio" in config:
        yield from (("transformer.audio." + name, shape) for name, shape in _audio_shapes(config["audio"]))


def _audio_shapes(audio: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    state, out = audio["n_state"], audio["output_dim"]
    yield from {
        "conv1.weight": (state, audio["n_mels"], 3), "conv1.bias": (state,), "conv2.weight": (state, state, 3), "conv2.bias": (state,),
        "positional_embedding": (audio["n_ctx"], state), "ln_post.weight": (state,), "ln_post.bias": (state,),
        "proj.weight": (out, state), "proj.bias": (out,),
    }.items()  # fmt: skip
    if audio["add_audio_bos_eos_token"]:
        yield "audio_bos_eos_token.weight", (2, out)
    for i in range(audio["n_layer"]):
        for name, width, inner in (("attn.query", state, state), ("attn.key", state, state), ("attn.value", state, state),
                                   ("attn.out", state, state), ("mlp.0", 4 * state, state), ("mlp.2", state, 4 * state)):  # fmt: skip
            yield f"blocks.{i}.{name}.weight", (width, inner)
            if name != "attn.key":
                yield f"blocks.{i}.{name}.bias", (width,)
        for name in ("attn_ln", "mlp_ln"):
            yield f"blocks.{i}.{name}.weight", (state,)
            yield f"blocks.{i}.{name}.bias", (state,)


def _values(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    if len(shape) == 1:  # a norm's weight, or a bias
        return (1.0 if name.endswith("weight") else 0.0) + 0.3 * rng.standard_normal(shape)
    return rng.standard_normal(shape) / (1.0 if "wte" in name or "bos_eos" in name else math.sqrt(math.prod(shape[1:]) / 2.0))


def _stored(values: Array, dtype: str) -> Array:
    if dtype == "bfloat16":  # the upper half of a float32, cut
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return values.astype(np.dtype(dtype).newbyteorder("<"))


def _write_safetensors(path: Path, tensors: Mapping[str, Array], dtype: str) -> None:
    """By hand, because the library's functions for NumPy know no bfloat16: length of the header, header, data."""
    code = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}[dtype]
    header, end = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": code, "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(values.tobytes() for values in tensors.values()))


def read_weights(folder: Path) -> dict[str, Array]:
    """Every tensor of the folder's safetensors files, widened to float64, by the safetensors library."""
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, stored in safetensors.deserialize(path.read_bytes()):
            weights[name] = _widened(stored["dtype"], bytes(stored["data"])).reshape(stored["shape"])
    return weights


def _widened(dtype: str, data: bytes) -> Array:
    if dtype == "BF16":  # the upper two bytes of a little-endian float32
        pairs = np.frombuffer(data, np.uint8).reshape(-1, 2)
        return np.pad(pairs, ((0, 0), (2, 0))).reshape(-1).view("<f4").astype(np.float64)
    return np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype(np.float64)


@functools.cache
def _loaded(folder: Path) -> QwenAudio:
    return qwenaudio_np.load(folder, backend="reference", force=True)


def open_model(folder: Path, ops: Any, dtype: type = np.float64, **replaced: Array) -> QwenAudio:
    """The checkpoint on `ops`, in `dtype`; each folder is read once. `replaced`: other values for tensors, dots written as __."""
    model = _loaded(folder)
    weights = {**model.weights, **{name.replace("__", "."): values for name, values in replaced.items()}} if replaced else model.weights
    return QwenAudio(model.config, weights, model.tokenizer, ops, dtype)


def all_logits(model: QwenAudio, ids: Sequence[int], waveforms: Sequence[Array] = ()) -> Array:
    """The package's logits of a whole prompt, [length, vocabulary]."""
    clips = [as_it_is(waveform) for waveform in waveforms]
    hidden, _ = model.prefill(model.embed(ids, model.encode_audio(clips)))
    return model.logits(hidden)


def as_it_is(waveform: Array) -> Clip:
    """A clip of a 16 kHz waveform."""
    return clip_from_array(waveform, 16000)


def distance(found: Array, expected: Array) -> float:
    """Largest difference, as a share of the root mean square of what is expected."""
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    return float(np.abs(found - expected).max() / math.sqrt(np.square(expected, dtype=np.float64).mean()))
