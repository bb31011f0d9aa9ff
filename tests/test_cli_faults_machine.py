"""Memory, disks, devices and defects of our own: one line on stderr, and what an output would replace stays as it was."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path

import pytest

from tests.checkpoint_tools import FIRST, copy_of_tiny
from tests.cli_tools import CLIP, GOLDEN, Run, assert_refused, files_of, nothing_written, process, request, runner, shell, tracing


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def test_memory_is_estimated_before_loading(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwenaudio_np.checkpoint.available_bytes", lambda: 123_000_000)
    assert_refused(run(*request("-p", "x")), 1, "not enough memory", "0.4 GB needed", "0.1 GB available", "--force")
    assert run(*request("-p", "x", "--force")).status == 0


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits differ elsewhere")
@pytest.mark.parametrize("megabytes", [60, 300])
def test_a_limit_of_the_address_space_is_an_error(megabytes: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    assert_refused(process(request("-p", "x", "--threads", "1"), preexec_fn=limit), 1, "not enough memory")


def test_out_of_memory_in_the_middle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("qwenaudio_np.model.QwenAudio.prefill", fail)
    assert_refused(run(*request("-p", "x")), 1, "out of memory")


def test_a_defect_is_one_line_and_debug_shows_it_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("qwenaudio_np.model.QwenAudio.prefill", fail)
    outcome = run(*request("-p", "x"))
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == "error: internal: RuntimeError: two\\nlines; please report it, with the output of --debug\n"
    assert run(*request("-p", "x", "--debug")).err.startswith("Traceback ")


@pytest.mark.parametrize("words", [request("-p", "x", "-n", "1"), tracing("-p", "x")], ids=["run", "trace"])
def test_a_full_disk_leaves_the_old_file(words: list[str], tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))

    with nothing_written(tmp_path):
        outcome = process([*words, "-o", str(target)], env=None, preexec_fn=limit)
        assert_refused(outcome, 1, "cannot write", "target", "file too large")


def test_a_device_takes_text_but_no_trace(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert_refused(run(*tracing("-p", "x", "-o", tmp_path / "pipe")), 2, "not a regular file")
    assert (tmp_path / "pipe").is_fifo()
    outcome = shell(f'cat "{tmp_path}/pipe" & "$@" -o "{tmp_path}/pipe" && wait', *request("-p", "x"))
    assert outcome == run(*request("-p", "x")) and sorted(files_of(tmp_path)) == ["pipe"]


def test_output_never_replaces_what_is_read(run: Run, tmp_path: Path) -> None:
    folder, clip = copy_of_tiny(tmp_path), tmp_path / "clip.wav"
    shutil.copy(CLIP, clip)
    (tmp_path / "link.wav").symlink_to(clip)
    with nothing_written(tmp_path):
        for target in (clip, tmp_path / "link.wav", folder / "config.json", folder / FIRST):
            assert_refused(run(*request("-p", "x", "-i", clip, "-o", target, model=folder)), 2, "would replace", target.name)


def test_golden_data_is_still_there() -> None:
    assert CLIP.is_file() and len(list(GOLDEN.glob("*/cases/*"))) > 10
