"""What the options of a request name, read."""

from __future__ import annotations

import io
import json
import os
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from qwenaudio_np.errors import FormatError, QwenAudioError, UsageError
from qwenaudio_np.inputs import MAX_ID, read_ids, read_request
from qwenaudio_np.parser import parse
from tests.cli_tools import CLIP


def options(*words: object) -> Namespace:
    return parse([str(word) for word in words])


def test_a_request_is_what_was_asked(tmp_path: Path) -> None:
    turn = {"query": "q", "audio": [str(CLIP)], "answer": "a"}
    (tmp_path / "history.json").write_text(json.dumps([turn, {"query": "é", "answer": ""}]))
    request = read_request(options("-p", "naïve", "-i", CLIP, "--system", "s", "--format", "chat", "--history", tmp_path / "history.json"))
    assert (request["prompt"], request["system"], request["format"], request["task"]) == ("naïve", "s", "chat", None)
    assert [clip.path for clip in request["audio"]] == [str(CLIP)]
    first, second = request["history"]
    assert (first["query"], first["answer"], [clip.vectors for clip in first["audio"]]) == ("q", "a", [13])
    assert second == {"query": "é", "answer": "", "audio": []}


def test_a_task_needs_no_prompt_and_ids_need_neither() -> None:
    request = read_request(options("--task", "question", "--question", "é?", "-i", CLIP))
    assert (request["prompt"], request["task"], request["question"]) == ("", "question", "é?")
    with pytest.raises(UsageError, match="nothing to do"):
        read_request(options("-i", CLIP))
    assert read_request(options("-i", CLIP), needs_prompt=False)["prompt"] == ""


@pytest.mark.parametrize(
    ("data", "prompt"), [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), ("é😀".encode(), "é😀"), (b"", ""), (b" a ", " a ")]
)
def test_a_prompt_from_stdin_loses_its_last_line_end(data: bytes, prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read_request(options("-p", "-"))["prompt"] == prompt


def test_stdin_that_gives_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    with pytest.raises(FormatError, match=r"UTF-8 text \(byte 2\)"):
        read_request(options("-p", "-"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a" * 11)))
    monkeypatch.setattr("qwenaudio_np.inputs.MAX_TEXT_BYTES", 10)
    with pytest.raises(FormatError, match="more than 10 bytes"):
        read_request(options("-p", "-"))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(QwenAudioError, match="closed"):
        read_request(options("-p", "-"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no non-blocking pipes")
def test_a_prompt_from_a_pipe_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing yet, or only a part of it, is no prompt."""
    for part in (b"", b"what does"):
        ends = os.pipe()
        os.set_blocking(ends[0], False)
        os.write(ends[1], part)
        with open(ends[0], "rb") as stream, open(ends[1], "wb"):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
            with pytest.raises(QwenAudioError, match="cannot read standard input: it is non-blocking, and has nothing at the moment"):
                read_request(options("-p", "-"))


def test_words_that_are_not_utf8() -> None:
    with pytest.raises(UsageError, match=r"--prompt is not UTF-8 text \(byte 1\)"):
        read_request(options("-p", "a\udcff"))
    with pytest.raises(UsageError, match="--system"):
        read_request(options("-p", "a", "--system", "\udc80"))
    assert read_request(options("-p", "\ud83d"))["prompt"] == "\ud83d"  # no shell can send this; Python code can


def test_utf8_that_python_took_for_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """With LANG=C and no UTF-8 mode, the bytes C3 A9 of é arrive as two lone surrogates."""
    assert read_request(options("-p", "\udcc3\udca9"))["prompt"] == "é"


def test_ids(tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    path.write_text(f" [0, {MAX_ID}]\n")
    assert read_ids(str(path)) == [0, MAX_ID]
    items = ("true", "-1", str(MAX_ID + 1), '"1"', "1.0", "null", "[1]", "NaN")
    for text in (*(f"[0, {item}]" for item in items), "{}", "1", "", "[1", '[1], "list": [2]'):
        path.write_text(text)
        with pytest.raises(FormatError, match=r"ids\.json"):
            read_ids(str(path))
