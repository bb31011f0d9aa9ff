"""A lock file: held by one process at a time, and free again when that process ends, however it ends."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qwenaudio_np.errors import ResourceError, UsageError, shown

# A link is not followed, and a pipe not waited for.
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def locked(path: Path, target: Path) -> Iterator[None]:
    """Hold the lock file for the length of the block. Raises UsageError with the holder's process number if another run has it,
    and UsageError too if `path` is anything else than a lock file: the name can be foreseen, and the file is written to.
    """
    try:
        descriptor = _open_locked(path)
    except BlockingIOError:
        with suppress(OSError):
            holder = path.read_text(encoding="ascii", errors="replace").strip()
            raise UsageError(f"process {shown(holder)} is writing {shown(target)}; wait for it to end") from None
        raise UsageError(f"another process is writing {shown(target)}; wait for it to end") from None
    except OSError as failure:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):  # a link, which is not followed, or a folder
            raise _not_ours(path) from None
        raise ResourceError(f"cannot write {shown(path)}: {(failure.strerror or 'unknown error').lower()}") from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        yield
    finally:
        with suppress(OSError):  # Windows does not delete open files; an unlocked file left there does no harm
            path.unlink()
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """A descriptor that holds the lock on the file now called `path`. Raises BlockingIOError if another process has it."""
    while True:
        descriptor = os.open(path, _FLAGS, 0o666)
        try:
            _lock(descriptor)
            _require_lock_file(descriptor, path)
            # The last holder may have deleted the file between our opening and locking it: then the lock is on nothing.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except (OSError, UsageError):
            os.close(descriptor)
            raise
        os.close(descriptor)


def _require_lock_file(descriptor: int, path: Path) -> None:
    """Raise UsageError unless the open file holds nothing or a process number, and has no other name that would change with it."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not re.fullmatch(rb"[0-9]*\r?\n?", os.read(descriptor, 64)):
        raise _not_ours(path)
    os.lseek(descriptor, 0, os.SEEK_SET)


def _not_ours(path: Path) -> UsageError:
    return UsageError(f"{shown(path)} is needed as a lock, but is no lock of this program; move it away, or choose another destination")


def _lock(descriptor: int) -> None:
    """An exclusive lock that the system takes back when the process ends. Raises BlockingIOError."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as failure:
            raise BlockingIOError(failure.errno, failure.strerror) from None
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
