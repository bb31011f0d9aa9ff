"""A request -> token ids and clips: files read, options checked against one another, the prompt laid out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qwenaudio_np.audio import Clip
from qwenaudio_np.errors import UsageError, kind_of, require_text, shown, value_of
from qwenaudio_np.prompt import DEFAULT_SYSTEM, Prompt, PromptWarning, Turn, base_prompt, chat_prompt
from qwenaudio_np.sampler import is_whole
from qwenaudio_np.sources import WITH_RATE, as_clip
from qwenaudio_np.tasks import task_prompt

if TYPE_CHECKING:
    from qwenaudio_np.model import QwenAudio

FORMATS = {"base": "raw", "chat": "chatml", "raw": "raw", "chatml": "chatml"}  # our words, and generation_config.json's
BASE_MAX_NEW_TOKENS = 256
CHAT_ONLY = "--history and --system belong to the chat format; "


@dataclass(frozen=True)
class Prepared:
    """A request after reading its files: ids, the clips that stand in them, and what the task or format asks of generation."""

    prompt: Prompt
    clips: tuple[Clip, ...]
    chat_format: str  # "raw" or "chatml"
    max_new_tokens: int
    min_new_tokens: int


def prepare(
    model: QwenAudio,
    prompt: str = "",
    audio: Any = (),
    *,
    task: str | None = None,
    language: str | None = None,
    text_language: str | None = None,
    question: str | None = None,
    style: str | None = None,
    format: str | None = None,
    system: str | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
) -> Prepared:
    """Read the clips and lay out the ids.

    `task`: one of tasks.TASKS, with its `language`, `text_language`, `question`, `style`; it brings its own prompt. `format`: "base" or
    "chat" (None: as generation_config.json says). `system` and `history`, a list of {"query", "audio", "answer"}, are a chat's.
    `max_new_tokens`, `min_new_tokens`: how long an answer may and must be (None: the task's or the model's own).
    Raises UsageError for combinations that mean nothing.
    """
    if not isinstance(prompt, str):
        raise UsageError(f"the prompt is {kind_of(prompt)}, expected text")
    task_options = {"language": language, "text_language": text_language, "question": question, "style": style}
    require_text({"task": task, "format": format, "system": system, **task_options})
    history = () if history is None else history
    check_history(history)
    check_combination(prompt, task, format, task_options, talk=bool(history) or system is not None)
    chat_format = FORMATS[format] if format else "raw" if task else model.config.generation.chat_format
    longest = BASE_MAX_NEW_TOKENS if chat_format == "raw" else model.config.generation.max_new_tokens
    shortest = 0
    if task:
        prompt, entry = task_prompt(task, **task_options)
        longest, shortest = entry.max_new_tokens, 1
    if chat_format == "chatml":
        laid_out, clips = _lay_out_chat(model, prompt, audio, history, DEFAULT_SYSTEM if system is None else system)
    elif history or system is not None:
        raise UsageError(CHAT_ONLY + "give --format chat")
    else:
        clips = read_clips(model, audio)
        if task and not clips:
            raise UsageError(f"task {task} is about sound: give --input FILE (in Python: audio=) too")
        if task and len(clips) > 1:
            advice = f"{len(clips)} clips stand in one prompt and get one answer; task {task} is meant for one: ask once for each file"
            warnings.warn(advice, PromptWarning, stacklevel=2)
        laid_out = base_prompt(model.tokenizer, prompt, _vectors(clips))
    longest = _count("--max-new-tokens", max_new_tokens, longest, 1)
    return Prepared(laid_out, tuple(clips), chat_format, longest, _count("--min-new-tokens", min_new_tokens, shortest, 0))


def read_clips(model: QwenAudio, audio: Any) -> list[Clip]:
    """The sounds of one turn, one or a list of them (None: no sound), for a model that can hear."""
    if audio is None:
        return []
    single = isinstance(audio, (str, os.PathLike, Clip, np.ndarray)) or hasattr(audio, "read")
    if not single and (not isinstance(audio, Iterable) or isinstance(audio, (Mapping, bytes, bytearray))):
        raise UsageError(f"audio is {kind_of(audio)}, expected a path, a Clip or an array, or a list of them; {WITH_RATE}")
    sources = [audio] if single else list(audio)
    if sources:
        model.audio_config()
    return [as_clip(source) for source in sources]


def check_history(history: Any) -> None:
    """Raise UsageError for anything but a list of turns."""
    turns = history if isinstance(history, Sequence) and not isinstance(history, str) else [None]
    if not all(isinstance(turn, Mapping) and isinstance(turn.get("query"), str) and isinstance(turn.get("answer"), str) for turn in turns):
        raise UsageError('history must be a list of {"query": text, "audio": [...], "answer": text}')


def check_combination(
    prompt: str, task: str | None, format: str | None, task_options: Mapping[str, str | None], talk: bool = False
) -> None:
    """Raise UsageError for options that no model takes together, or a format that is none. `talk`: a history or system text is given."""
    if format is not None and format not in FORMATS:
        raise UsageError(f"--format is {shown(format)}, expected base or chat")
    if task and format and FORMATS[format] == "chatml":
        raise UsageError("a task is a base prompt; leave --format chat out, or ask with --prompt in words")
    if task and prompt:
        raise UsageError("a task brings its own prompt: give --task or --prompt, not both (a question goes into --question)")
    if talk and task:
        raise UsageError(CHAT_ONLY + "ask with --prompt in words, not with --task")
    if talk and format and FORMATS[format] == "raw":
        raise UsageError(CHAT_ONLY + "give --format chat")
    if not task and any(task_options.values()):
        given = ", ".join("--" + name.replace("_", "-") for name, value in task_options.items() if value)
        raise UsageError(f"{given} belongs to a task; give --task too")


def _lay_out_chat(
    model: QwenAudio, prompt: str, audio: Any, history: Sequence[Mapping[str, Any]], system: str
) -> tuple[Prompt, list[Clip]]:
    """The ids of a chat, and the clips of the turns that are still in them."""
    old_clips = [read_clips(model, turn.get("audio", ())) for turn in history]
    new_clips = read_clips(model, audio)
    turns = [Turn(turn["query"], _vectors(clips), turn["answer"]) for turn, clips in zip(history, old_clips, strict=True)]
    window = model.config.generation.max_window_size
    laid_out = chat_prompt(model.tokenizer, turns, Turn(prompt, _vectors(new_clips)), system, window)
    if laid_out.dropped_turns:
        advice = f"the {laid_out.dropped_turns} oldest turn(s) were left out: the window is {window} tokens"
        warnings.warn(advice, PromptWarning, stacklevel=2)
    return laid_out, [clip for clips in [*old_clips[laid_out.dropped_turns :], new_clips] for clip in clips]


def _vectors(clips: Sequence[Clip]) -> tuple[int, ...]:
    return tuple(clip.vectors for clip in clips)


def _count(option: str, value: int | None, default: int, low: int) -> int:
    if value is None:
        return default
    if not is_whole(value) or value < low:
        raise UsageError(f"{option} is {value_of(value)}, expected a whole number of at least {low}")
    return int(value)
