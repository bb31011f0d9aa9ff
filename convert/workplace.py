"""A folder that appears whole or not at all, for work that takes long: locked, resumable, renamed at the end.

Everything is made in `.NAME.converting` beside the destination, under a lock that ends with the process, however it ends.
What a killed run left there is found by the next one, which decides what of it is good.

    .NAME.converting        the folder being filled
    .NAME.converting.lock   held while a run works; holds its process number
    .NAME.replaced          the old folder, for the moment between two renames (only with force)
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qwenaudio_np.errors import QwenAudioError, ResourceError, UsageError, shown

from .safetensors_writer import sync_folder

SPARE = 0.05  # of the bytes to be written that must stay free on the disk


@contextmanager
def workplace(target: Path, own_files: Collection[str], force: bool) -> Iterator[Path]:
    """Yield the folder to fill; if the block ends well it becomes `target`.

    It stays, to be resumed, after an interruption and where the disk refused; after an error in the input it is deleted.

    With `force` an existing `target` is replaced if it holds nothing but safetensors files and `own_files`.
    Raises UsageError (target in use, or another run works on it), ResourceError (the disk refuses).
    """
    if not target.parent.is_dir():
        raise UsageError(f"{shown(target.parent)} is not an existing folder; make it first")
    partial, replaced = (target.with_name(f".{target.name}.{state}") for state in ("converting", "replaced"))
    with _locked(partial.with_name(partial.name + ".lock"), target):
        _recover(target, replaced)
        _require_free(target, own_files, force)
        try:
            partial.mkdir(exist_ok=True)
            yield partial
            sync_folder(partial)
            if target.exists():
                target.rename(replaced)
            partial.rename(target)
            sync_folder(target.parent)
        except OSError as failure:
            raise ResourceError(f"cannot write {shown(target)}: {(failure.strerror or 'unknown error').lower()}") from None
        except QwenAudioError as failure:
            if not isinstance(failure, ResourceError):
                shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            _recover(target, replaced)


def require_disk(folder: Path, needed: int) -> None:
    """Raise ResourceError if the disk under `folder` has less than `needed` bytes and a little more."""
    needed, free = int(needed * (1 + SPARE)), shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"not enough disk space in {shown(folder)}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; choose another disk"
        )


def _recover(target: Path, replaced: Path) -> None:
    """A run that ended between the two renames left the old folder aside: put it back. One that ended after them left it over."""
    if not replaced.exists():
        return
    if target.exists():
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        replaced.rename(target)


def _require_free(target: Path, own_files: Collection[str], force: bool) -> None:
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{shown(target)} exists and is not a folder; choose another name")
    foreign = [path.name for path in sorted(target.iterdir()) if path.name not in own_files and path.suffix != ".safetensors"]
    if foreign:
        raise UsageError(f"{shown(target)} holds {shown(foreign[0])}, which is no part of a checkpoint made here; choose another folder")
    if any(target.iterdir()) and not force:
        raise UsageError(f"{shown(target)} already holds a checkpoint; choose another folder or replace it with --force")


@contextmanager
def _locked(path: Path, target: Path) -> Iterator[None]:
    """Hold the lock file for the length of the block. Raises UsageError with the holder's process number if another run has it."""
    try:
        descriptor = _open_locked(path)
    except BlockingIOError:
        with suppress(OSError):
            holder = path.read_text(encoding="ascii", errors="replace").strip()
            raise UsageError(f"process {shown(holder)} is writing {shown(target)}; wait for it to end") from None
        raise UsageError(f"another process is writing {shown(target)}; wait for it to end") from None
    except OSError as failure:
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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            _lock(descriptor)
            # The last holder may have deleted the file between our opening and locking it: then the lock is on nothing.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


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
