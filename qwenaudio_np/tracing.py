"""The tensors between the stages of the network, by name: what other implementations check their own numbers against.

Names, k counting clips and i layers (no batch axis):

    audio.k.mel [mels, 2T]  audio.k.conv1 [state, 2T]  audio.k.conv2 [state, T] (both before GELU)  audio.k.blocks.i [T, state]
    audio.k.ln_post [N, state]  audio.k.proj [N, hidden]
    decoder.embed [L, hidden] (sound in its place)  decoder.h.i [L, hidden]  decoder.ln_f [L, hidden]  decoder.logits [L, vocabulary]
    decoder.h.i.key_cache and .value_cache [L, heads, head_dim] (keys after rotary; rounded, if they are kept so)
    generate.logits [steps, vocabulary]  generate.ids [steps]  prompt.ids [L]

Id j of generate.ids was picked from row j of generate.logits, whose row 0 is the last of decoder.logits; a stop id ends both early. A task
bars stop ids from row 0: there the id is the best of the others (`min_new_tokens` of a request bars them from more rows).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qwenaudio_np.audio import Clip
from qwenaudio_np.cache import KVCache
from qwenaudio_np.checkpoint import mapped_bytes
from qwenaudio_np.errors import UsageError, value_of
from qwenaudio_np.generate import generate_ids, stop_ids
from qwenaudio_np.memory import available_bytes, needed_bytes, require_memory
from qwenaudio_np.ops import widen
from qwenaudio_np.prepare import prepare, read_clips
from qwenaudio_np.sampler import greedy, is_whole
from qwenaudio_np.wiring import Tap

if TYPE_CHECKING:
    from qwenaudio_np.model import QwenAudio


def trace(
    model: QwenAudio,
    ids: Sequence[int] | None = None,
    audio: Any = (),
    steps: int = 0,
    prompt: str | None = None,
    force: bool = False,
    **request: Any,
) -> dict[str, np.ndarray]:
    """Run a prompt and keep every tensor, in the order of computation but for the caches, which come together after the logits, in the
    model's float type.

    Either `ids` (spans between audio tags take the clips of `audio` in order) or `prompt` and the options of a request
    (task, format, system, history, ...). `steps` > 0 also generates greedily, at most that many ids, up to a stop id.
    `force`: go on although memory looks too small; of 2048 positions at full size, keys, values and logits alone take 5 GiB.
    """
    if not is_whole(steps) or steps < 0:
        raise UsageError(f"steps is {value_of(steps)}, expected a whole number, 0 or more")
    if ids is None:
        _require_prompt(prompt, request)
        ready = prepare(model, prompt or "", audio, **request)
        ids, clips, chat_format, shortest = ready.prompt.ids, ready.clips, ready.chat_format, ready.min_new_tokens
    else:
        require_only_ids({"prompt": prompt, **request})
        if not isinstance(ids, Iterable) or isinstance(ids, (Mapping, Set)) or not all(map(is_whole, ids := list(ids))):
            raise UsageError("ids must be whole numbers in a list")
        clips, chat_format, shortest = tuple(read_clips(model, audio)), model.config.generation.chat_format, 0
    model.check_ids(ids)
    model.spans(ids, [model.sound_rows(clip) for clip in clips])  # or raise, before sound is encoded
    if not force:
        _require_memory(model, len(ids), steps, clips)
    clips = tuple(replace(clip) for clip in clips)  # one object that stands twice would be encoded, and told of, once
    taps: dict[str, np.ndarray] = {"prompt.ids": np.asarray(ids, np.int64)}

    def tap(name: str, value: np.ndarray) -> None:
        # A copy, because views of the network's arrays may be written to later; in C order, because files are written as memory lies.
        taps[name] = np.array(value, order="C")

    x = model.embed(ids, model.encode_audio(clips, tap))
    tap("decoder.embed", x)
    hidden, cache = model.prefill(x, tap)
    tap("decoder.logits", model.logits(hidden))
    _tap_cache(model, cache, tap)
    if steps:
        stops = stop_ids(model.tokenizer, chat_format)
        pairs = list(generate_ids(model, taps["decoder.logits"][-1], cache, greedy, stops, steps, min(shortest, steps)))
        taps["generate.logits"] = np.stack([logits for _, logits in pairs])
        taps["generate.ids"] = np.array([token for token, _ in pairs], np.int64)
    return taps


def require_only_ids(request: Mapping[str, Any]) -> None:
    """Raise UsageError for anything beside ids that would make a prompt; `audio` fills their spans."""
    if any(value for name, value in request.items() if name != "audio"):
        raise UsageError("ids are a whole prompt already; give ids, or a prompt and its options, not both")


def _require_prompt(prompt: str | None, request: Mapping[str, Any]) -> None:
    """Raise UsageError where there is nothing to trace, and for a number of new tokens, which would do nothing."""
    if prompt is None and not request.get("task"):
        raise UsageError("nothing to trace: give ids, a prompt or a task")
    if request.get("max_new_tokens") is not None:
        raise UsageError("max_new_tokens is for answers; steps says how many ids a trace generates")


def _tap_cache(model: QwenAudio, cache: KVCache, tap: Tap) -> None:
    for layer in range(model.config.text.num_hidden_layers):
        keys, values = (widen(kept, model.dtype) for kept in cache.view(layer))  # [heads, L, head_dim]
        tap(f"decoder.h.{layer}.key_cache", keys.transpose(1, 0, 2))
        tap(f"decoder.h.{layer}.value_cache", values.transpose(1, 0, 2))


def _require_memory(model: QwenAudio, length: int, steps: int, clips: Sequence[Clip]) -> None:
    """Mapped weights must find room beside what the trace makes and keeps."""
    positions = min(length + steps, model.config.text.max_position_embeddings)
    kept = _kept_bytes(model, length, positions - length, clips)
    needed = needed_bytes(model.config, kept, positions, model.dtype, model.kv, length)
    require_memory(needed, available_bytes(mapped=mapped_bytes(model.weights)))


def _kept_bytes(model: QwenAudio, positions: int, steps: int, clips: Sequence[Clip]) -> int:
    """Bytes of what a trace keeps. Per position: each block's output, key and value, and the logits twice (computed, then copied). Per
    step: the logits twice, too. Per clip: the encoder's blocks, convolutions and mel."""
    text, audio = model.config.text, model.config.audio
    decoder = positions * (3 * (text.num_hidden_layers + 1) * text.hidden_size + 2 * text.vocab_size)
    decoder += 2 * steps * text.vocab_size
    encoder = sum(clip.positions * ((audio.n_layer + 4) * audio.n_state + 2 * audio.n_mels) for clip in clips) if audio else 0
    return model.dtype.itemsize * (decoder + encoder)


def _version(package: str) -> str:
    """Of an installed package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe(model: QwenAudio, tensors: dict[str, np.ndarray]) -> dict[str, str]:
    """What a trace file says about itself: order of the tensors, hash of the config, backend, versions."""
    config = json.dumps(asdict(model.config), sort_keys=True)
    from qwenaudio_np import __version__

    return {
        # The name of a folder may hold bytes that are no UTF-8, which the file's header must be.
        **{name: value.encode("utf-8", "backslashreplace").decode() for name, value in model.labels.items()},
        "order": json.dumps(list(tensors)),
        "config": config,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "dtype": str(model.dtype),
        "qwenaudio_np": __version__,
        "numpy": np.__version__,
        "numba": _version("numba"),
        "python": platform.python_version(),
    }
