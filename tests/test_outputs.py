"""Files that appear whole or not at all, and everything an output file can be instead."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qwenaudio_np import outputs
from qwenaudio_np.errors import QwenAudioError, UsageError
from qwenaudio_np.outputs import PARTIAL, check_output, require_regular, whole_file, write_text
from tests.cli_tools import environment, files_of

root = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")


def test_a_text_is_written_whole(tmp_path: Path) -> None:
    write_text(str(tmp_path / "a"), "é\udcff\n")
    assert files_of(tmp_path) == {"a": "é\\udcff\n".encode()}


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(str(tmp_path / "a")) as temporary:
        Path(temporary).write_text("half")
        assert (tmp_path / "a").read_text() == "old"
        raise ZeroDivisionError
    assert files_of(tmp_path) == {"a": b"old"}


def test_a_library_may_write_by_renaming(tmp_path: Path) -> None:
    with whole_file(str(tmp_path / "a")) as temporary:
        (Path(temporary).parent / "theirs").write_text("new")
        os.replace(Path(temporary).parent / "theirs", temporary)
    assert files_of(tmp_path) == {"a": b"new"}


def test_the_system_says_why(tmp_path: Path) -> None:
    with pytest.raises(QwenAudioError, match=r"cannot write '.*a': permission denied"), whole_file(str(tmp_path / "a")):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(QwenAudioError, match="no such file"):
        write_text(str(tmp_path / "nowhere" / "a"), "x")
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_those_of_an_ordinary_file(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_text(str(tmp_path / "new"), "x")
        (tmp_path / "old").touch(0o640)
        write_text(str(tmp_path / "old"), "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640 & ~umask


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/target")
    write_text(str(tmp_path / "link"), "x")
    assert (tmp_path / "link").is_symlink() and files_of(tmp_path / "folder") == {"target": b"x"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks")
def test_what_a_killed_run_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    """A process that holds its folder is killed in the middle; the next run cleans up after it, but not before its death."""
    code = "import sys\nfrom qwenaudio_np.outputs import whole_file\nwith whole_file(sys.argv[1]):\n  print(flush=True)\n  sys.stdin.read()"
    words = [sys.executable, "-c", code, str(tmp_path / "theirs")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as other:
        assert other.stdout
        other.stdout.readline()
        write_text(str(tmp_path / "ours"), "x")
        assert sorted(files_of(tmp_path)) == [f"{PARTIAL}{other.pid}", "ours"]
        other.kill()
    assert len(files_of(tmp_path)) == 2
    write_text(str(tmp_path / "ours"), "y")
    assert files_of(tmp_path) == {"ours": b"y"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks")
def test_a_folder_that_another_run_takes_for_abandoned_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making and locking it: the other run has the lock, or has removed it already; or one of the same number has it."""
    lock, taken = outputs._lock, []

    def meddling(folder: str) -> int | None:
        taken.append(folder)
        if len(taken) == 1:
            raise BlockingIOError
        if len(taken) == 2:
            os.rmdir(folder)
        return lock(folder)

    monkeypatch.setattr(outputs, "_lock", meddling)
    write_text(str(tmp_path / "a"), "x")
    assert len(set(taken)) == 3 and (tmp_path / "a").read_text() == "x"
    monkeypatch.setattr(outputs, "_remove_abandoned", lambda folder: None)
    (tmp_path / f"{PARTIAL}{os.getpid()}").mkdir(exist_ok=True)
    write_text(str(tmp_path / "a"), "y")
    assert (tmp_path / "a").read_text() == "y"


def test_file_systems_without_rights_or_syncing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    write_text(str(tmp_path / "a"), "x")
    assert files_of(tmp_path) == {"a": b"x"}


def test_a_pipe_takes_text_and_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        write_text(str(pipe), "x\n")
        assert reader.stdout and reader.stdout.read() == b"x\n"
    with pytest.raises(UsageError, match="not a regular file"), whole_file(str(pipe)):
        pytest.fail("a name was given")
    with pytest.raises(UsageError, match="not a regular file"):
        require_regular(str(pipe))
    assert pipe.is_fifo() and sorted(files_of(tmp_path)) == ["pipe"]


@pytest.mark.parametrize(
    ("name", "fragment"), [("-", "./-"), ("", "directory"), ("folder", "directory"), ("new/", "directory"), ("nowhere/a", "does not exist")]
)
def test_names_that_cannot_be_meant(name: str, fragment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=fragment):
        check_output(name)


def test_names_that_the_system_refuses(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    for name in ("circle", "a" * 300):
        with pytest.raises(QwenAudioError, match="cannot write"):
            check_output(str(tmp_path / name))
    check_output(str(tmp_path / "new"))


@root
def test_what_is_protected_stays(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o444)
    (tmp_path / "folder").mkdir(0o555)
    for name in ("file", "folder/new"):
        with pytest.raises(QwenAudioError, match="permission denied"):
            check_output(str(tmp_path / name))


def test_an_input_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "c")
    for name in "abc":
        with pytest.raises(UsageError, match="would replace"):
            check_output(str(tmp_path / name), ["-", "nowhere", str(tmp_path / "a")])
    check_output(str(tmp_path / "d"), [str(tmp_path / "a")])


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no descriptors by name here")
def test_a_file_that_a_descriptor_leads_to_is_not_replaced(tmp_path: Path) -> None:
    """As in `run -o /dev/stdout >> log`."""
    log = tmp_path / "log"
    log.write_text("earlier line")
    with log.open("a") as stream, pytest.raises(UsageError, match="descriptor"):
        check_output(f"/dev/fd/{stream.fileno()}")
    assert files_of(tmp_path) == {"log": b"earlier line"}
