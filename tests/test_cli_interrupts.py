"""Ctrl-C and SIGTERM, at any moment: what was answered is kept, nothing else is left behind, and the end comes at once."""

from __future__ import annotations

import importlib
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenaudio_np.model import QwenAudio
from tests.cli_tools import CLIP, LONG, Outcome, Run, files_of, nothing_written, process, request, runner, start, tracing


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


INTERRUPTED_AT_IMPORT = """
import os, signal, sys
class Hook:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Hook())"""


@pytest.mark.parametrize("name", ["qwenaudio_np.parser", "numpy.linalg", "datetime", "numba._devicearray"])
def test_ctrl_c_while_importing(name: str) -> None:
    """NumPy imports `datetime` from C, and Numba `_devicearray`: whatever goes wrong there becomes an ImportError."""
    outcome = process(request("-i", str(CLIP), "-p", "x", backend="numba"), INTERRUPTED_AT_IMPORT.format(name=name))
    assert outcome == Outcome(130, "", "interrupted\n")


def interrupting(function: Callable[..., Any], call: int = 1) -> Callable[..., Any]:
    """The function, but Ctrl-C is pressed when it is called for the n-th time."""
    calls = 0

    def pressed(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    return pressed


PLACES = {"as_clip": "inputs", "load": "commands", "answer": "commands"}
STAGES = ("encode_audio", "prefill", "logits")


@pytest.mark.parametrize("name", [*PLACES, *STAGES])
def test_ctrl_c_before_the_first_word_leaves_nothing(name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder: Any = QwenAudio if name in STAGES else importlib.import_module(f"qwenaudio_np.{PLACES[name]}")
    monkeypatch.setattr(holder, name, interrupting(getattr(holder, name)))
    with nothing_written(tmp_path):
        assert run(*request("-i", CLIP, "-p", "x", "-o", tmp_path / "answer.txt")) == Outcome(130, "", "interrupted\n")


@pytest.mark.parametrize("way", ["stdout", "output", "json"])
def test_ctrl_c_while_answering_keeps_what_there_is(way: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three = run(*request("-p", "hello", tokens=3)).out
    monkeypatch.setattr(QwenAudio, "step", interrupting(QwenAudio.step, call=3))
    target = tmp_path / "answer"
    outcome = run(*request("-p", "hello", *{"stdout": [], "output": ["-o", target], "json": ["--json"]}[way]))
    assert outcome.status == 130 and outcome.err == "interrupted; what was answered so far is kept\n"
    if way == "json":
        report = json.loads(outcome.out)
        assert (report["text"] + "\n", len(report["token_ids"]), report["stop"]) == (three, 3, "interrupted")
    else:
        assert (target.read_text() if way == "output" else outcome.out) == three


def test_ctrl_c_in_a_trace_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safetensors.numpy.save_file", interrupting(lambda tensors, path, metadata: Path(path).touch()))
    with nothing_written(tmp_path):
        assert run(*tracing("-p", "x", "-o", tmp_path / "trace")) == Outcome(130, "", "interrupted\n")


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_text_streams_and_ctrl_c_ends_a_process_within_a_second(backend: str) -> None:
    with start(request("-p", "hello", backend=backend, tokens=LONG), bufsize=0) as child:
        assert child.stdout
        first = child.stdout.read(1)  # arrives while the rest is still being computed
        child.send_signal(signal.SIGINT)
        begin = time.perf_counter()
        out, err = child.communicate(timeout=60)
        assert time.perf_counter() - begin < 1
    assert (child.returncode, err) == (130, b"interrupted; what was answered so far is kept\n")
    assert first != b"\n" and out.endswith(b"\n")


def test_sigterm_ends_a_process_as_ever(tmp_path: Path) -> None:
    with start(request("-p", "hello", "-o", str(tmp_path / "answer"), "-v", tokens=LONG)) as child:
        assert child.stderr
        while not child.stderr.readline().startswith(b"answering"):
            pass
        child.terminate()
    assert child.returncode == -signal.SIGTERM and files_of(tmp_path) == {}
