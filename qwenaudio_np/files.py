"""Opening files that come from outside, once and safely.

A file is opened by one call and everything after works on that descriptor, so it cannot be swapped in between.
Folders, devices, pipes and empty files are refused before a byte is read: a pipe would wait for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qwenaudio_np.errors import FormatError, QwenAudioError, shown

# The first bytes of files that are often found where another file should be.
_IMPOSTORS = (
    (b"version https://git-lfs", "a git-lfs pointer: fetch the real file (git lfs pull)"),
    (b"<!DOCTYPE", "an HTML page: the download failed; fetch the file again"),
    (b"<!doctype", "an HTML page: the download failed; fetch the file again"),
    (b"<html", "an HTML page: the download failed; fetch the file again"),
    (b"Entry not found", "an error message of the server: fetch the file again"),
)


@contextmanager
def open_regular(path: str | Path, error: type[QwenAudioError] = FormatError) -> Iterator[tuple[int, int]]:
    """Yield (descriptor, size in bytes) of a regular, non-empty file; anything else raises `error`."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as failure:  # ValueError: a NUL byte in the name
        raise error(f"cannot open {shown(path)}: {reason(failure)}") from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise error(f"{shown(path)} is a directory, expected a file; name one in it")
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{shown(path)} is not a regular file (a pipe, socket or device), expected a file; copy it to one")
        if status.st_size == 0:
            raise error(f"{shown(path)} is empty (0 bytes); fetch or export it again")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


@contextmanager
def readable(path: str | Path, error: type[QwenAudioError] = FormatError) -> Iterator[None]:
    """What the system says while an open file is read (a bad disk, a network that is gone) becomes `error`, with the file's name."""
    try:
        yield
    except OSError as failure:
        raise error(f"cannot read {shown(path)}: {reason(failure)}; copy the file to another disk, or fetch it again") from None


def refuse_impostor(path: str | Path, head: bytes, error: type[QwenAudioError] = FormatError) -> None:
    """Say what a file really is when its first bytes are those of a pointer or an error page."""
    for magic, what in _IMPOSTORS:
        if head.lstrip()[: len(magic)] == magic:
            raise error(f"{shown(path)} is {what}")


def read_bytes(path: str | Path, limit: int, error: type[QwenAudioError] = FormatError) -> bytes:
    """The whole of a regular file of at most `limit` bytes."""
    with open_regular(path, error) as (descriptor, size):
        if size > limit:
            raise error(f"{shown(path)} has {size} bytes, expected at most {limit}; is it the right file?")
        with readable(path, error), os.fdopen(os.dup(descriptor), "rb") as stream:
            data = stream.read(limit + 1)
    refuse_impostor(path, data[:64], error)
    return data


def read_text(path: str | Path, limit: int, error: type[QwenAudioError] = FormatError) -> str:
    """The whole of a UTF-8 file of at most `limit` bytes."""
    try:
        return read_bytes(path, limit, error).decode("utf-8")
    except UnicodeDecodeError as failure:
        raise error(f"{shown(path)} is not UTF-8 text (byte {failure.start}); fetch the file again") from None


def reason(failure: OSError | ValueError) -> str:
    """Why a file cannot be opened or read, in the style of this program's messages."""
    if isinstance(failure, OSError):
        if failure.errno == errno.ENOENT:
            return "no such file; check the path"
        return (failure.strerror or "unknown error").lower()
    return "not a valid file name"


def chunks(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """What a stream gives, until it ends or `most` bytes are there. Raises BlockingIOError where it does not wait for more to come."""
    total = 0
    while total < most and (chunk := stream.read(1 << 20)) != b"":
        if chunk is None:  # what there is so far is not the whole
            raise BlockingIOError("it is non-blocking, and has nothing at the moment")
        total += len(chunk)
        yield chunk
