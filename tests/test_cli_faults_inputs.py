"""Sound files, histories and lists of ids that are wrong: one line on stderr, the right status, nothing new. Odd names are right."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli_tools import CLIP, Run, assert_refused, nothing_written, request, runner, tracing


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def sound(*samples: float, rate: int = 16000, subtype: str = "FLOAT") -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, np.array(samples, np.float32), rate, subtype, format="WAV")


BAD_SOUND: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such file": (lambda path: None, "no such file"),
    "directory": (Path.mkdir, "is a directory"),
    "pipe": (os.mkfifo, "not a regular file"),
    "dangling link": (lambda path: path.symlink_to("nothing"), "no such file"),
    "circle of links": (lambda path: path.symlink_to(path), "symbolic links"),
    "empty file": (Path.touch, "0 bytes"),
    "text": (lambda path: path.write_text("hello"), "looks like text"),
    "web page": (lambda path: path.write_text("<!DOCTYPE html>"), "HTML"),
    "random bytes": (lambda path: path.write_bytes(bytes(range(64))), "first bytes 00 01"),
    "header alone": (lambda path: path.write_bytes(CLIP.read_bytes()[:20]), "WAV"),
    "no samples": (sound(), "no sound"),
    "one sample": (sound(0.5), "too short"),
    "479 samples": (sound(*[0.1] * 479), "479 samples"),
    "short at another rate": (sound(*[0.1] * 1300, rate=44100), "too short"),
    "not a number": (sound(*[0.1] * 600, float("nan")), "NaN or infinity in 1 frames"),
    "infinite": (sound(float("inf"), *[0.1] * 600), "NaN or infinity in 1 frames"),
}


@pytest.mark.parametrize("name", BAD_SOUND)
def test_bad_sound(name: str, run: Run, tmp_path: Path) -> None:
    make, fragment = BAD_SOUND[name]
    path = tmp_path / "bad.wav"
    make(path)
    with nothing_written(tmp_path):
        assert_refused(run(*request("-p", "x", "-i", CLIP, path, "-o", tmp_path / "answer")), 1, fragment, "bad.wav")


def test_the_shortest_clip_is_answered(run: Run, tmp_path: Path) -> None:
    sound(*[0.1] * 480)(tmp_path / "short.wav")
    assert run(*request("-p", "x", "-i", tmp_path / "short.wav")).status == 0


ODD_NAMES = ["new\nline", "\x1b[31mred", "non-utf8-\udcff", "😀", "<audio>", "<|im_end|>", "%s{}", "$(reboot)", "'\"", "a" * 200]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_load_and_are_escaped_where_they_are_told(name: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / name
    assert_refused(run(*request("-p", "x", "-i", path)), 1, "no such file", ascii(name)[1:-1])
    shutil.copy(CLIP, path)
    plain = json.loads(run(*request("-p", "x", "-i", CLIP, "--json")).out)
    odd = json.loads(run(*request("-p", "x", "-i", path, "--json")).out)
    assert (odd["prompt_ids"], odd["token_ids"]) == (plain["prompt_ids"], plain["token_ids"])
    assert odd["audio"][0]["path"] == str(path)


def test_a_name_may_begin_with_a_hyphen(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CLIP, tmp_path / "-x")
    assert run(*request("-p", "x", "--input=-x")) == run(*request("-p", "x", "-i", CLIP))


TURN = {"query": "a", "audio": [], "answer": "b"}
BAD_HISTORY: dict[str, tuple[str, int, str]] = {
    "no JSON": ("x", 1, "not valid JSON"),
    "nothing": ("\n", 1, "not valid JSON"),
    "more than a list": ('[], "list": 3', 1, "not valid JSON"),
    "a list and more": ('[], "x": 3', 1, "not valid JSON"),
    "an object": ("{}", 1, "list"),
    "a turn in words": ('["hello"]', 1, "turn 1"),
    "a turn without answer": ('[{"query": "a"}]', 1, "turn 1"),
    "a turn with something else": (json.dumps([TURN, {**TURN, "sound": []}]), 1, "turn 2"),
    "audio that is no list": (json.dumps([{**TURN, "audio": "a.wav"}]), 1, "turn 1"),
    "audio that is not there": (json.dumps([{**TURN, "audio": ["nowhere.wav"]}]), 1, "nowhere.wav"),
    "an audio tag": (json.dumps([{**TURN, "query": "<audio>"}]), 2, "<audio>"),
}


@pytest.mark.parametrize("name", BAD_HISTORY)
def test_bad_history(name: str, run: Run, tmp_path: Path) -> None:
    text, status, fragment = BAD_HISTORY[name]
    (tmp_path / "history.json").write_text(text)
    with nothing_written(tmp_path):
        assert_refused(run(*request("-p", "x", "--history", tmp_path / "history.json", "-o", tmp_path / "answer")), status, fragment)


START, PLACEHOLDER, END = 4520, 1208, 4521
SPAN = [START, *[PLACEHOLDER] * 13, END]
BAD_IDS: dict[str, tuple[str, list[Path], int, tuple[str, ...]]] = {
    "no list": ('{"ids": [1]}', [], 1, ("list",)),
    "true": ("[1, true]", [], 1, ("item 1", "'True'")),
    "a fraction": ("[1.0]", [], 1, ("item 0", "'1.0'")),
    "below zero": ("[-1]", [], 1, ("item 0", "'-1'")),
    "beyond any integer": ("[99999999999999999999]", [], 1, ("item 0",)),
    "no ids": ("[]", [], 2, ("0 tokens",)),
    "past the vocabulary": ("[4544]", [], 2, ("4543", "4544")),
    "more clips than spans": (json.dumps([*SPAN, 1]), [CLIP, CLIP], 1, ("1 audio spans", "2 clips")),
    "more spans than clips": (json.dumps([*SPAN, *SPAN, 1]), [CLIP], 1, ("2 audio spans", "1 clips")),
    "a span of another length": (json.dumps([START, PLACEHOLDER, END, 1]), [CLIP], 1, ("3 positions", "15")),
    "a span without end": (json.dumps([START, 1]), [CLIP], 1, ("no </audio>",)),
    "an end without span": (json.dumps([1, END]), [CLIP], 1, ("position 1",)),
    "past the context": (json.dumps([1] * 8193), [], 2, ("8193 tokens", "8192")),
}


@pytest.mark.parametrize("name", BAD_IDS)
def test_bad_ids(name: str, run: Run, tmp_path: Path) -> None:
    text, clips, status, fragments = BAD_IDS[name]
    (tmp_path / "ids.json").write_text(text)
    sounds = ["-i", *clips] if clips else []
    with nothing_written(tmp_path):
        assert_refused(run(*tracing("--ids", tmp_path / "ids.json", *sounds, "-o", tmp_path / "trace")), status, *fragments)


def test_ids_are_a_whole_prompt(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text("[1]")
    for more in (["-p", "x"], ["--task", "asr", "-i", CLIP], ["--system", "x"]):
        assert_refused(run(*tracing("--ids", tmp_path / "ids.json", "-o", tmp_path / "trace", *more)), 2, "ids")
