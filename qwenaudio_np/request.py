"""One request from sound files and words to an answer: the steps of the command line and of `model.generate`, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qwenaudio_np.audio import Clip
from qwenaudio_np.cache import Memory, Past
from qwenaudio_np.checkpoint import mapped_bytes
from qwenaudio_np.errors import UsageError, value_of
from qwenaudio_np.generate import generate_ids, stop_ids, stop_reason
from qwenaudio_np.memory import available_bytes, cache_bytes, needed_bytes, require_memory
from qwenaudio_np.prepare import Prepared, prepare
from qwenaudio_np.sampler import Sampler, Sampling, make_sampler
from qwenaudio_np.tokenizer import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from qwenaudio_np.model import QwenAudio

Progress = Callable[[str], None]  # called with a line that says which stage begins


@dataclass
class Result:
    """An answer and where it came from. `token_ids` do not include the stop id.

    `timings`, in seconds: audio (reading files, laying out the prompt), encode (log-mel too), prefill, decode, total; the command adds
    load. A stage that did not begin before an interruption is not there.
    """

    text: str
    token_ids: list[int]
    prompt_ids: list[int]
    stop_reason: str  # "stop", "length", "context", or "interrupted" (Ctrl-C: what was there so far is kept)
    timings: dict[str, float]
    clips: list[Clip] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)  # model, backend, weights, kv

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed: a step for each id after the first, which is the prefill's; the stop id, not listed, took a step too."""
        steps = len(self.token_ids) - (self.stop_reason != "stop")
        return steps / self.timings["decode"] if steps > 0 and self.timings["decode"] > 0 else 0.0

    def __repr__(self) -> str:
        return f"Result({self.text!r}, {len(self.prompt_ids)} + {len(self.token_ids)} tokens, {self.stop_reason!r})"


def answer(
    model: QwenAudio,
    prompt: str = "",
    audio: Any = (),
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    stream: Callable[[str], None] | None = None,
    progress: Progress = lambda stage: None,
    keep_interrupted: bool = False,
    force: bool = False,
    memory: Memory | None = None,
    **request: Any,
) -> Result:
    """Answer `prompt` about the clips in `audio`: one or a list of paths, Clips, or float arrays at 16 kHz.

    `request`: what `prepare` takes: task, language, text_language, question, style (see tasks.py), format ("base" or "chat",
    default: the checkpoint's), system, history (list of {"query", "audio", "answer"}), max_new_tokens, min_new_tokens.
    `stream` gets the text piece by piece as it comes. `keep_interrupted`: Ctrl-C ends the answer, not the program; the result
    so far is returned. `force`: go on although memory looks too small for the prompt's keys and values. `memory`: what earlier
    turns of a conversation left to use again.
    """
    sampler = make_sampler(Sampling(temperature, top_k, top_p, seed))
    timings: dict[str, float] = {}
    with _timed(timings, "audio"):
        ready = prepare(model, prompt, audio, **request)
    if ready.min_new_tokens > ready.max_new_tokens:
        least, most = value_of(ready.min_new_tokens), value_of(ready.max_new_tokens)
        raise UsageError(f"--min-new-tokens is {least}, expected at most {most}, the longest answer; --max-new-tokens changes that")
    model.check_ids(ready.prompt.ids)  # before sound is encoded, which may take minutes
    if not force:
        _require_memory(model, ready, memory)
    # "interrupted" stands until the last step has set another reason
    result = Result("", [], list(ready.prompt.ids), "interrupted", timings, list(ready.clips), dict(model.labels))
    text = _Text(model.tokenizer, stream)
    try:
        _generate(model, ready, sampler, result, text, progress, memory or Memory())
    except KeyboardInterrupt:
        if not keep_interrupted:
            raise
    result.text = text.finish()
    timings["total"] = sum(timings.values())
    return result


def _require_memory(model: QwenAudio, ready: Prepared, memory: Memory | None) -> None:
    """Mapped weights must find room beside what is new; weights of our own, and what earlier turns keep, are taken already.

    Spare capacity is not: the system gives it when it is written to.
    """
    positions = min(len(ready.prompt.ids) + ready.max_new_tokens, model.config.text.max_position_embeddings)
    kept = cache_bytes(model.config.text, memory.past.cache.length, model.kv.itemsize) if memory and memory.past else 0
    needed = needed_bytes(model.config, 0, positions, model.dtype, model.kv, len(ready.prompt.ids)) - kept
    require_memory(needed, available_bytes(mapped=mapped_bytes(model.weights)))


def _generate(
    model: QwenAudio, ready: Prepared, sampler: Sampler, result: Result, text: _Text, progress: Progress, memory: Memory
) -> None:
    """Encode, prefill and decode into `result` and `text`, which hold what is there so far if this is interrupted."""
    stops = stop_ids(model.tokenizer, ready.chat_format)
    seen: list[int] = []
    with _timed(result.timings, "encode"):
        if ready.clips:
            progress(f"encoding {sum(clip.seconds for clip in ready.clips):.1f} s of sound")
        sounds = model.encode_audio(ready.clips, known=memory.sounds)
        memory.forget_all_but(ready.clips)
    with _timed(result.timings, "prefill"):
        progress(f"reading a prompt of {len(ready.prompt.ids)} tokens")
        x = model.embed(ready.prompt.ids, sounds)
        hidden, cache = model.prefill(x, past=memory.past)
        memory.past = Past(x, cache)
        logits = model.logits(hidden[-1:])[0]
    with _timed(result.timings, "decode"):
        progress("answering")
        for token, _ in generate_ids(model, logits, cache, sampler, stops, ready.max_new_tokens, ready.min_new_tokens):
            seen.append(token)
            if token not in stops:
                result.token_ids.append(token)
                text.push(token)
    result.stop_reason = stop_reason(seen, stops, ready.max_new_tokens)
    decoded = seen[: cache.length - len(x)]  # the last id was never fed back
    memory.past = Past(np.concatenate([x, model.look_up(decoded)]), cache) if decoded else memory.past


class _Text:
    """The answer as it grows, handed on piece by piece."""

    def __init__(self, tokenizer: Tokenizer, stream: Callable[[str], None] | None) -> None:
        self._decoder, self._stream = StreamDecoder(tokenizer), stream
        self._pieces: list[str] = []

    def push(self, token: int) -> None:
        """One more token; nothing is handed on before it is whole characters."""
        self._emit(self._decoder.push(token))

    def finish(self) -> str:
        """The whole text, without white space around it."""
        self._emit(self._decoder.flush())
        return "".join(self._pieces).strip()

    def _emit(self, piece: str) -> None:
        self._pieces.append(piece)
        if self._stream and piece:
            self._stream(piece)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = time.perf_counter() - begin
