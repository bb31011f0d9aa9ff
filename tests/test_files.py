"""Opening files from outside: regular and non-empty or one clear line, never a wait, never a descriptor left open."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from qwenaudio_np.audio import load_clip
from qwenaudio_np.errors import AudioError, FormatError, QwenAudioError
from qwenaudio_np.files import open_regular, read_bytes, read_text, refuse_impostor

LIMIT = 1000


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    """A pipe that is opened the wrong way waits for ever: fail after 5 s instead."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def expire(*_: object) -> None:
        raise TimeoutError("opening a file has waited for 5 s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, 5.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    """Whatever happened, as many descriptors are open as before."""
    place = Path("/proc/self/fd")
    before = len(list(place.iterdir())) if place.is_dir() else 0
    yield
    assert not place.is_dir() or len(list(place.iterdir())) == before


def refused(path: str | Path, *words: str, error: type[QwenAudioError] = FormatError) -> str:
    with pytest.raises(error) as caught:
        read_bytes(path, LIMIT, error)
    message = str(caught.value)
    assert type(caught.value) is error
    assert "\n" not in message and message.isascii()
    assert not [word for word in words if word not in message], message
    return message


def made(path: Path, data: bytes = b"data") -> Path:
    path.write_bytes(data)
    return path


# ---- what is read


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = made(tmp_path / "x", bytes(range(256)))
    assert read_bytes(path, LIMIT) == read_bytes(str(path), LIMIT) == bytes(range(256))
    with open_regular(path) as (descriptor, size):
        assert size == 256 and os.read(descriptor, 3) == b"\x00\x01\x02"


def test_a_file_of_exactly_the_limit(tmp_path: Path) -> None:
    assert len(read_bytes(made(tmp_path / "x", b"x" * LIMIT), LIMIT)) == LIMIT
    refused(made(tmp_path / "y", b"x" * (LIMIT + 1)), "1001 bytes", "at most 1000")


def test_a_sparse_file_is_refused_by_its_size(tmp_path: Path) -> None:
    os.truncate(made(tmp_path / "x"), 1 << 40)
    refused(tmp_path / "x", str(1 << 40))


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    """The layout of the hub's cache: names link to blobs."""
    made(tmp_path / "blob")
    (tmp_path / "link").symlink_to("blob")
    assert read_bytes(tmp_path / "link", LIMIT) == b"data"


def test_text(tmp_path: Path) -> None:
    assert read_text(made(tmp_path / "x", "naïve 你好\r\n".encode()), LIMIT) == "naïve 你好\r\n"
    with pytest.raises(FormatError, match=r"not UTF-8 text \(byte 2\)"):
        read_text(made(tmp_path / "y", b"na\xefve"), LIMIT)


def test_the_same_descriptor_survives_a_swap(tmp_path: Path) -> None:
    """The file is opened once: replacing the name afterwards changes nothing."""
    path = made(tmp_path / "x", b"first")
    with open_regular(path) as (descriptor, size):
        os.replace(made(tmp_path / "y", b"second, longer"), path)
        assert (size, os.read(descriptor, 100)) == (5, b"first")


def test_closed_even_if_the_user_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), open_regular(made(tmp_path / "x")):
        raise KeyError("the user's own")


# ---- what is refused


def test_no_such_file(tmp_path: Path) -> None:
    refused(tmp_path / "x", "cannot open", "no such file")
    refused(made(tmp_path / "file") / "below", "cannot open", "not a directory")


def test_a_directory(tmp_path: Path) -> None:
    refused(tmp_path, "is a directory", "expected a file")
    refused(str(tmp_path) + "/", "is a directory")


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    (tmp_path / "link").symlink_to("pipe")
    refused(tmp_path / "link", "not a regular file")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device(device: str) -> None:
    if not os.path.exists(device):
        pytest.skip(f"no {device} here")
    refused(device, "not a regular file")


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        refused("socket", "cannot open")


def test_links_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nothing")
    refused(tmp_path / "dangling", "no such file")
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "cannot open", "symbolic links")


def test_an_empty_file(tmp_path: Path) -> None:
    refused(made(tmp_path / "x", b""), "is empty (0 bytes)")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    made(tmp_path / "x").chmod(0)
    refused(tmp_path / "x", "cannot open", "permission denied")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\udcff", "line\nbreak", "\x1b[31mred", "你好", ""])
def test_names_that_cannot_be_or_must_be_escaped(tmp_path: Path, name: str) -> None:
    refused(str(tmp_path) + "/missing/" + name)
    refused(name, "cannot open")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "HTML page"),
        (b"<!doctype html>", "HTML page"),
        (b"\n  <html lang='en'>", "HTML page"),
        (b"Entry not found", "error message of the server"),
    ],
)
def test_something_else_in_its_place(tmp_path: Path, data: bytes, word: str) -> None:
    refused(made(tmp_path / "x", data), word)
    with pytest.raises(AudioError, match=word):
        refuse_impostor(tmp_path / "x", data, AudioError)


@pytest.mark.parametrize("data", [b"html", b"version 2", b"{}", b"entry not found", b"<", b" "])
def test_what_only_looks_alike_is_read(tmp_path: Path, data: bytes) -> None:
    assert read_bytes(made(tmp_path / "x", data), LIMIT) == data


def test_the_caller_chooses_the_class(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", made(tmp_path / "empty", b""), made(tmp_path / "big", b"x" * 2000)):
        refused(path, error=AudioError)


@pytest.mark.parametrize("error", [FormatError, AudioError])
def test_a_disk_that_fails_while_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[QwenAudioError]) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    path, opened = made(tmp_path / "x"), os.fdopen

    class Broken:  # opened, but gives nothing
        def __init__(self, descriptor: int, mode: str) -> None:
            self.stream = opened(descriptor, mode)

        def __enter__(self) -> SimpleNamespace:
            return SimpleNamespace(read=broken)

        def __exit__(self, *_: object) -> None:
            self.stream.close()

    monkeypatch.setattr(os, "fdopen", Broken)
    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(error, match=r"cannot read '.*x': input/output error"):
        load_clip(path) if error is AudioError else read_bytes(path, LIMIT)
