"""One request from sound files and words to an answer: the steps of the command line and of `model.generate`, in order."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qwenaudio_np.audio import Clip
from qwenaudio_np.cache import Memory, Past
from qwenaudio_np.errors import UsageError, shown
from qwenaudio_np.generate import generate_ids, stop_ids, stop_reason
from qwenaudio_np.memory import available_bytes, cache_bytes, require_memory
from qwenaudio_np.prompt import DEFAULT_SYSTEM, Prompt, PromptWarning, Turn, base_prompt, chat_prompt
from qwenaudio_np.sampler import Sampler, Sampling, make_sampler
from qwenaudio_np.sources import as_clip
from qwenaudio_np.tasks import task_prompt
from qwenaudio_np.tokenizer import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from qwenaudio_np.model import QwenAudio

FORMATS = {"base": "raw", "chat": "chatml", "raw": "raw", "chatml": "chatml"}
BASE_MAX_NEW_TOKENS = 256
Progress = Callable[[str], None]  # called with a line that says which stage begins


@dataclass
class Result:
    """An answer and where it came from. `token_ids` are without the stop id. Times in seconds per stage."""

    text: str
    token_ids: list[int]
    prompt_ids: list[int]
    stop_reason: str  # "stop", "length", "context", or "interrupted" (Ctrl-C: what was there so far is kept)
    timings: dict[str, float]
    clips: list[Clip] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)  # model, backend, weights

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed, from the second token on: the first is the prefill's."""
        steps = len(self.token_ids) - 1
        return steps / self.timings["decode"] if steps > 0 and self.timings["decode"] > 0 else 0.0


@dataclass(frozen=True)
class Prepared:
    """A request after reading its files: ids, the clips that stand in them, and what the task or format asks of generation."""

    prompt: Prompt
    clips: tuple[Clip, ...]
    chat_format: str
    max_new_tokens: int
    min_new_tokens: int


def answer(
    model: QwenAudio,
    prompt: str = "",
    audio: Sequence[Any] = (),
    *,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    stream: Callable[[str], None] | None = None,
    progress: Progress = lambda stage: None,
    force: bool = False,
    memory: Memory | None = None,
    **request: Any,
) -> Result:
    """Answer `prompt` about the clips in `audio` (paths, Clips, or float arrays at 16 kHz).

    `request`: task, language, text_language, question, style (see tasks.py), format ("base" or "chat", default: the
    checkpoint's), system, history (list of {"query", "audio", "answer"}). `stream` gets the text piece by piece as it comes.
    `memory`: what earlier turns of a conversation left to use again. `force`: go on although memory looks too small for the
    prompt's keys and values. After Ctrl-C the result so far is returned, with stop_reason "interrupted".
    """
    sampler = make_sampler(Sampling(temperature, top_k, top_p, seed))
    timings: dict[str, float] = {}
    with _timed(timings, "audio"):
        ready = prepare(model, prompt, audio, max_new_tokens=max_new_tokens, min_new_tokens=min_new_tokens, **request)
    if not force:
        require_memory(cache_bytes(model.config.text, len(ready.prompt.ids), model.dtype.itemsize), available_bytes())
    result = Result("", [], list(ready.prompt.ids), "interrupted", timings, list(ready.clips), dict(model.labels))
    text = _Text(model.tokenizer, stream)
    with suppress(KeyboardInterrupt):  # stop_reason then stays "interrupted"
        _generate(model, ready, sampler, result, text, progress, memory or Memory())
    result.text = text.finish()
    timings["total"] = sum(timings.values())
    return result


def _generate(
    model: QwenAudio, ready: Prepared, sampler: Sampler, result: Result, text: _Text, progress: Progress, memory: Memory
) -> None:
    """Encode, prefill and decode into `result` and `text`, which hold what is there so far if this is interrupted."""
    stops = stop_ids(model.tokenizer, ready.chat_format)
    seen: list[int] = []
    with _timed(result.timings, "encode"):
        if ready.clips:
            progress(f"encoding {len(ready.clips)} clip(s), {sum(clip.seconds for clip in ready.clips):.1f} s of sound")
        sounds = model.encode_audio(ready.clips, known=memory.sounds)
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


def prepare(
    model: QwenAudio,
    prompt: str = "",
    audio: Sequence[Any] = (),
    *,
    task: str | None = None,
    format: str | None = None,
    system: str | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
    **task_options: str | None,
) -> Prepared:
    """Read the clips and lay out the ids. Raises UsageError for combinations that mean nothing."""
    chat_format = _chat_format(model, task, format)
    limit = BASE_MAX_NEW_TOKENS if chat_format == "raw" else model.config.generation.max_new_tokens
    forbidden_ends = 0
    if task:
        if prompt:
            raise UsageError("a task brings its own prompt: give --task or --prompt, not both (a question goes into --question)")
        prompt, entry = task_prompt(task, **task_options)
        limit, forbidden_ends = entry.max_new_tokens, 1
    elif any(task_options.values()):
        given = ", ".join("--" + name.replace("_", "-") for name, value in task_options.items() if value)
        raise UsageError(f"{given} belongs to a task; give --task too")
    if chat_format == "raw":
        if history or system is not None:
            raise UsageError("--history and --system belong to the chat format; give --format chat")
        clips = _clips(model, audio)
        laid_out = base_prompt(model.tokenizer, prompt, [clip.vectors for clip in clips])
    else:
        laid_out, clips = _lay_out_chat(model, prompt, audio, history, DEFAULT_SYSTEM if system is None else system)
    longest = _count("--max-new-tokens", max_new_tokens, limit, 1)
    shortest = _count("--min-new-tokens", min_new_tokens, forbidden_ends, 0)
    return Prepared(laid_out, tuple(clips), chat_format, longest, shortest)


def _chat_format(model: QwenAudio, task: str | None, format: str | None) -> str:
    """ "raw" or "chatml": as asked for, else raw for a task (its tags are a base prompt), else what the checkpoint says."""
    if format is not None and format not in FORMATS:
        raise UsageError(f"--format is {shown(format)}, expected base or chat")
    if task and format and FORMATS[format] == "chatml":
        raise UsageError("a task is a base prompt; leave --format chat out, or ask with --prompt in words")
    if format:
        return FORMATS[format]
    return "raw" if task else model.config.generation.chat_format


def _lay_out_chat(
    model: QwenAudio, prompt: str, audio: Sequence[Any], history: Sequence[Mapping[str, Any]], system: str
) -> tuple[Prompt, list[Clip]]:
    """The ids of a chat, and the clips of the turns that are still in them."""
    old_clips = [_clips(model, turn.get("audio", ())) for turn in history]
    new_clips = _clips(model, audio)
    turns = [Turn(turn["query"], _vectors(clips), turn["answer"]) for turn, clips in zip(history, old_clips, strict=True)]
    window = model.config.generation.max_window_size
    laid_out = chat_prompt(model.tokenizer, turns, Turn(prompt, _vectors(new_clips)), system, window)
    if laid_out.dropped_turns:
        advice = f"the {laid_out.dropped_turns} oldest turn(s) were left out: the window is {window} tokens"
        warnings.warn(advice, PromptWarning, stacklevel=2)
    return laid_out, [clip for clips in [*old_clips[laid_out.dropped_turns :], new_clips] for clip in clips]


def _clips(model: QwenAudio, audio: Sequence[Any]) -> list[Clip]:
    """Read the sounds of one turn, for a model that can hear."""
    if audio:
        model.require_hearing()
    return [as_clip(source) for source in audio]


def _vectors(clips: Sequence[Clip]) -> tuple[int, ...]:
    return tuple(clip.vectors for clip in clips)


def _count(option: str, value: int | None, default: int, low: int) -> int:
    if value is None:
        return default
    if type(value) is not int or value < low:
        raise UsageError(f"{option} is {shown(value)}, expected a whole number of at least {low}")
    return value


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = time.perf_counter() - begin
