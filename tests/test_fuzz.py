"""Fuzzing, a little of it in every run of the tests; and that it finds what it looks for. The long run: make fuzz."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qwenaudio_np.errors import QwenAudioError
from tests.cli_tools import ROOT, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits on a process as on Unix")

REFUSED = {"pickle/hostile", "pickle/whisper", "pickle/values_2", "pickle/values_4", "torch/older_big_endian"}  # of the seeds


def python(*words: str) -> subprocess.CompletedProcess[str]:
    env = environment(OPENBLAS_NUM_THREADS="1")
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def test_a_few_thousand_inputs() -> None:
    """Whatever has failed before first, then new ones."""
    done = python("-m", "tests.fuzz", "--count", "400", "--seed", "20260101")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 400 inputs, ") == 8


def test_seeds_are_what_their_script_makes() -> None:
    from tests.fuzz.make_corpus import files
    from tests.fuzz.targets import CORPUS

    stored = {path.relative_to(CORPUS).as_posix(): path.read_bytes() for path in CORPUS.rglob("*") if path.is_file()}
    assert stored == files()


def test_seeds_are_good_inputs(tmp_path: Path) -> None:
    """All but a few that are refused on purpose, or every edit of them would end in the same place."""
    from tests.fuzz.targets import CORPUS, TARGETS

    refused = set()
    for kind, target in TARGETS.items():
        for path in sorted((CORPUS / kind).iterdir()) if kind != "packed" else ():
            try:
                target(path.read_bytes(), tmp_path)
            except QwenAudioError:
                refused.add(f"{kind}/{path.name}")
    assert refused == REFUSED


def test_inputs_depend_on_kind_seed_and_number_alone() -> None:
    from tests.fuzz.mutate import made
    from tests.fuzz.targets import TARGETS

    for kind in TARGETS:
        inputs = [made(kind, seed, number) for seed in (1, 2) for number in range(40)]
        assert inputs == [made(kind, seed, number) for seed in (1, 2) for number in range(40)]
        assert len(set(inputs)) > 60 and all(inputs)


PLANTED = """
import os, time
from qwenaudio_np.errors import FormatError, ResourceError
from tests.fuzz.survey import survey

def target(data, folder):
    word = data.decode()
    if word == "crash": os.abort()
    if word == "exit": os._exit(0)
    if word == "hang": sum(iter(int, 1))
    if word == "hog": bytearray(1 << 30)
    if word == "other error": {}["x"]
    if word == "several lines": raise FormatError("one\\ntwo")
    if word == "memory error of ours": raise ResourceError("not enough memory")
    if word == "command": os.system("true")
    if word == "code": exec("1")
    if word == "module": import this
    if word == "refused": raise FormatError("one line")

words = ["good", "crash", "refused", "hang", "hog", "good", "other error", "several lines", "memory error of ours", "command", "code",
         "module", "exit", "good"]
outcome = survey(target, lambda number: words[number].encode(), len(words), seconds=0.5)
print(outcome.read, outcome.refused)
for number, reason in outcome.failures.items():
    print(words[number], "->", reason.splitlines()[-1])
"""


def test_every_kind_of_failure_is_noticed() -> None:
    """With what went wrong; and what comes behind it is read all the same."""
    done = python("-c", PLANTED)
    counts, *lines = done.stdout.splitlines()
    assert counts == "3 1", done.stdout + done.stderr
    said = dict(line.split(" -> ") for line in lines)
    assert list(said) == [
        "crash", "hang", "hog", "other error", "several lines", "memory error of ours", "command", "code", "module", "exit",
    ]  # fmt: skip
    assert said["crash"].endswith("SIGABRT") and said["hang"] == "took more than 0.5 seconds" and said["hog"] == "MemoryError"
    assert "KeyError" in said["other error"] and "several lines" in said["several lines"]
    assert "ResourceError" in said["memory error of ours"]
    assert "os.system" in said["command"] and "compile" in said["code"] and "import" in said["module"] and "ended early" in said["exit"]


def test_failing_inputs_are_kept_and_read_again(tmp_path: Path) -> None:
    """Read from the folder where they are kept; one that fails still is a failure of the run."""
    (tmp_path / "header-1").write_bytes(b"x")
    (tmp_path / "header-2").write_bytes((ROOT / "tests" / "fuzz" / "corpus" / "header" / "two").read_bytes())
    done = python("-m", "tests.fuzz", "--again", "--found", str(tmp_path))
    assert done.returncode == 0 and "header, kept before: 2 inputs, 1 read, 1 refused, 0 failed" in done.stdout
    broken = "import sys\nfrom tests.fuzz.__main__ import TARGETS, main\nTARGETS['vocabulary'] = lambda data, folder: 1 / 0\n"
    broken += f"sys.argv[1:] = ['--kinds', 'vocabulary', '--count', '3', '--found', {str(tmp_path)!r}]\nsys.exit(main())"
    done = python("-c", broken)
    assert done.returncode == 1 and done.stdout.count("ZeroDivisionError") == 3, done.stdout + done.stderr
    assert len(list(tmp_path.glob("vocabulary-*"))) == 3
    assert python("-c", broken.replace("'3'", "'0'")).stdout.count("ZeroDivisionError") == 3  # those that were kept
