"""Running the command line in tests: inside this process for speed, as a process of its own where that is the point."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from qwenaudio_np.cli import main

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
TINY = GOLDEN / "tiny" / "checkpoint"
CLIP = GOLDEN / "audio" / "tone.wav"  # half a second
UNUSUAL = ("PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONCOERCECLOCALE")  # what would hide faults of the streams
LONG = 5000  # tokens that nobody waits for
TIMEOUT = 60  # seconds; far above what anything here takes


class Outcome(NamedTuple):
    """What a caller sees of one run."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


def request(*words: object, model: Path = TINY, backend: str = "reference", tokens: int = 4) -> list[str]:
    """The words of a short `run`, with more of them at the end."""
    return ["--model", str(model), "--backend", backend, "--max-new-tokens", str(tokens), *map(str, words)]


def tracing(*words: object, model: Path = TINY) -> list[str]:
    """The words of a `trace` on the reference backend."""
    return ["trace", "--model", str(model), "--backend", "reference", *map(str, words)]


def runner(capture: pytest.CaptureFixture[str]) -> Run:
    """A function that runs the command line in this process."""

    def run(*words: object) -> Outcome:
        capture.readouterr()  # what came before is not this run's
        status = main([str(word) for word in words])
        return Outcome(status, *capture.readouterr())

    return run


def environment(**changes: str) -> dict[str, str]:
    """The environment of a user's process, which finds the package with or without installation."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    usual = {name: value for name, value in os.environ.items() if name not in UNUSUAL}
    return {**usual, "PYTHONPATH": path, **changes}


def start(words: list[str], code: str | None = None, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """A process of its own; with `code`, that runs first and may prepare something."""
    main_module = "import runpy\nrunpy.run_module('qwenaudio_np', run_name='__main__')"
    call = ["-m", "qwenaudio_np"] if code is None else ["-c", f"{code}\n{main_module}"]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *call, *words], env=env or environment(), **{**pipes, **options})


def process(words: list[str], code: str | None = None, env: dict[str, str] | None = None, **options: Any) -> Outcome:
    """Run a process of its own to its end."""
    with start(words, code, env, **options) as child:
        out, err = child.communicate(timeout=TIMEOUT)
    return Outcome(child.returncode, (out or b"").decode(), (err or b"").decode())


def shell(script: str, *words: str, env: dict[str, str] | None = None) -> Outcome:
    """A line of bash in which `"$@"` is the command with its words; its status is that of the command."""
    command = ["bash", "-c", script, "bash", sys.executable, "-m", "qwenaudio_np", *words]
    done = subprocess.run(command, env=env or environment(), capture_output=True, timeout=TIMEOUT)
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def files_of(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden things too, with its bytes (None: not a regular file)."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@contextmanager
def nothing_written(folder: Path) -> Iterator[None]:
    """Fail if anything below the folder differs afterwards."""
    before = files_of(folder)
    yield
    assert files_of(folder) == before


def assert_refused(outcome: Outcome, status: int, *fragments: str) -> None:
    """One line that begins with `error: ` and holds every fragment, nothing on stdout, the status."""
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n"), outcome.err
    assert outcome.err.startswith("error: "), outcome.err
    assert outcome.err.rstrip("\n").isprintable(), outcome.err
    for fragment in fragments:
        assert fragment in outcome.err, outcome.err
    assert "internal" not in outcome.err and "Traceback" not in outcome.err, outcome.err
    assert (outcome.status, outcome.out) == (status, "")
