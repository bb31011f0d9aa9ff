"""What the options of a request name, read: sound files, stdin, history, lists of ids."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Any, BinaryIO

from qwenaudio_np import console
from qwenaudio_np.errors import FormatError, QwenAudioError, UsageError, shown
from qwenaudio_np.files import chunks, read_text
from qwenaudio_np.json_fields import parse_json
from qwenaudio_np.prepare import check_combination
from qwenaudio_np.sources import as_clip
from qwenaudio_np.tasks import task_prompt

MAX_TEXT_BYTES = 1 << 26  # of a prompt, a history, a list of ids
MAX_ID = (1 << 31) - 1


def read_request(arguments: Namespace, needs_prompt: bool = True) -> dict[str, Any]:
    """What is asked, as `answer` takes it, with the sound files read: one that is missing is told before a large model is opened.

    Raises UsageError for a request that cannot be, AudioError or FormatError for a file that cannot be used.
    """
    if needs_prompt and arguments.prompt is None and arguments.task is None:
        raise UsageError("nothing to do: give --prompt TEXT or --task NAME (qwenaudio-np --help shows examples)")
    task_options = {name: getattr(arguments, name) for name in ("language", "text_language", "question", "style")}
    history = _read_history(arguments.history) if arguments.history is not None else []
    talk = bool(history) or arguments.system is not None
    check_combination(arguments.prompt or "", arguments.task, arguments.format, task_options, talk)
    if arguments.task is not None:
        task_prompt(arguments.task, arguments.language, arguments.text_language, arguments.question, arguments.style)
        if not arguments.input:
            raise UsageError(f"task {arguments.task} is about sound: give --input FILE too")
    names = ("task", "language", "text_language", "style", "format")
    return {
        "prompt": _stdin_text() if arguments.prompt == "-" else _typed_text(arguments, "prompt") or "",
        "history": history,
        "audio": [as_clip(_stdin() if name == "-" else name) for name in arguments.input],
        **{name: getattr(arguments, name) for name in names},
        **{name: _typed_text(arguments, name) for name in ("question", "system")},
    }


def _typed_text(arguments: Namespace, name: str) -> str | None:
    """Words of the command line as UTF-8, even where Python took them for ASCII (LANG=C)."""
    text: str | None = getattr(arguments, name)
    if text is None or text.isascii():
        return text
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeEncodeError:  # not from a command line but from a caller in Python, who has characters already
        return text
    except UnicodeDecodeError as error:
        raise UsageError(f"--{name} is not UTF-8 text (byte {error.start}); convert it first") from None


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise QwenAudioError("`-` means standard input, but that is closed")
    return sys.stdin.buffer


def _stdin_text() -> str:
    """A prompt from stdin, without the line end of its last line."""
    try:
        data = b"".join(chunks(_stdin(), MAX_TEXT_BYTES + 1))
        text = data.decode("utf-8")
    except OSError as error:
        raise QwenAudioError(f"cannot read standard input: {console.reason(error)}") from None
    except UnicodeDecodeError as error:
        raise FormatError(f"the prompt on standard input is not UTF-8 text (byte {error.start}); convert it first") from None
    if len(data) > MAX_TEXT_BYTES:
        raise FormatError(f"the prompt on standard input has more than {MAX_TEXT_BYTES} bytes; is it the right file?")
    return text.removesuffix("\n").removesuffix("\r")


def read_ids(path: str) -> list[int]:
    """A JSON list of token ids. Raises FormatError."""
    ids = _read_list(path)
    for position, value in enumerate(ids):
        if type(value) is not int or not 0 <= value <= MAX_ID:  # `type is`: JSON true must not pass as 1
            raise FormatError(f"{shown(path)}: item {position} is {shown(value)}, expected a token id, a whole number from 0 to {MAX_ID}")
    return ids


def _read_history(path: str) -> list[dict[str, Any]]:
    """The turns of a --history file, their sound files read."""
    turns = _read_list(path)
    for position, turn in enumerate(turns, 1):
        if not _is_turn(turn):
            raise FormatError(f'{shown(path)}: turn {position} must be {{"query": text, "audio": [file names], "answer": text}}')
    return [{**turn, "audio": [as_clip(name) for name in turn.get("audio", [])]} for turn in turns]


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict) or not {"query", "answer"} <= set(turn) <= {"query", "audio", "answer"}:
        return False
    audio = turn.get("audio", [])
    return isinstance(audio, list) and all(isinstance(text, str) for text in (turn["query"], turn["answer"], *audio))


def _read_list(path: str) -> list[Any]:
    """A JSON list from a file, with the strictness of `parse_json`."""
    values: list[Any] = parse_json(read_text(path, MAX_TEXT_BYTES), where=path, kind=list)
    return values
