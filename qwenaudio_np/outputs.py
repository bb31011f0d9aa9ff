"""Files that a run writes: checked before the work, written whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from qwenaudio_np.console import reason
from qwenaudio_np.errors import QwenAudioError, UsageError, shown

DESCRIPTOR = re.compile(r"/dev/(std(in|out|err)|fd/\d+)|/proc/(self|\d+)/fd/\d+")
PARTIAL = ".qwenaudio-np.partial-"  # and the number of the process


def check_output(path: str, inputs: Iterable[str] = ()) -> None:
    """Find out before hours of work that a file cannot be written, or would replace one of `inputs`.

    Raises UsageError for a name that cannot be meant, QwenAudioError for what the system refuses.
    """
    if path == "-":
        raise UsageError("--output - is not a file; name one (./- for a file of that name); without --output, run prints")
    if DESCRIPTOR.fullmatch(os.path.normpath(path)) and (sys.stdout is None or os.path.isfile(path)):
        raise UsageError(f"--output {shown(path)} is what a descriptor leads to, which would be replaced; name a file, or leave it out")
    if os.path.isdir(path) or not os.path.basename(path):
        raise UsageError(f"--output {shown(path)} is a directory, expected the name of a file")
    target = os.path.realpath(path)
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        raise UsageError(f"--output {shown(path)}: the folder {shown(parent)} does not exist; make it first")
    try:
        exists = os.stat(path) is not None
    except FileNotFoundError:
        exists = False
    except OSError as error:  # a name that is too long, a circle of links
        raise QwenAudioError(f"cannot write {shown(path)}: {reason(error)}") from None
    if exists and any(os.path.exists(name) and os.path.samefile(name, path) for name in inputs):
        raise UsageError(f"--output {shown(path)} would replace a file that is read; choose another name")
    needed = [path] if exists else []
    if not exists or os.path.isfile(path):
        needed.append(parent)  # a regular file is replaced, which its folder must allow
    if not all(os.access(name, os.W_OK) for name in needed):
        raise QwenAudioError(f"cannot write {shown(path)}: permission denied")


def write_text(path: str, text: str) -> None:
    """Write a UTF-8 file, whole or not at all. Devices and pipes are written as the text comes."""
    if os.path.exists(path) and not os.path.isfile(path):
        with _explained(path):
            _write(path, text)
        return
    with whole_file(path) as temporary:
        _write(temporary, text)


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Yield a name to write to; what is written there becomes `path` only if the block ends well.

    The name lies in a folder of its own beside `path`, so that it does not matter how a library writes: safetensors makes a
    temporary file too, and renames it over whatever has the name. Raises QwenAudioError where anything cannot be written.
    """
    require_regular(path)
    target = os.path.realpath(path)  # a link stays a link: its target is replaced
    with _explained(path), _private_folder(os.path.dirname(target)) as (folder, mode):
        temporary = os.path.join(folder, os.path.basename(target))
        yield temporary
        _to_disk(temporary)
        with suppress(OSError):  # some file systems have no rights (CIFS, Windows' drives under WSL), and refuse them
            os.chmod(temporary, os.stat(target).st_mode & 0o777 if os.path.exists(target) else mode & 0o666)
        os.replace(temporary, target)


def _to_disk(path: str) -> None:
    """A rename may reach the disk before the data does. What cannot be told to, such as some file systems of a user's own, need not."""
    with open(path, "r+b") as stream:  # Windows asks for a handle that may write
        try:
            os.fsync(stream.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise


def require_regular(path: str) -> None:
    """Raise UsageError where `path` is a device, pipe or folder, which cannot be replaced by a file."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"--output {shown(path)} is not a regular file (a device, pipe or socket), expected one, or a new name")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise QwenAudioError(f"cannot write {shown(path)}: {reason(error)}") from None


@contextmanager
def _private_folder(parent: str) -> Iterator[tuple[str, int]]:
    """(name, mode) of a new folder in `parent`, locked while it is in use, and gone with all that is in it at the end."""
    prefix = os.path.join(parent, PARTIAL)
    for name in glob.glob(glob.escape(prefix) + "*"):
        _remove_abandoned(name)
    folder, descriptor = _new_folder(prefix)
    try:
        try:
            yield folder, os.stat(folder).st_mode
        finally:
            _unlock(descriptor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder(prefix: str) -> tuple[str, int | None]:
    """A new folder's name and the descriptor of its lock.

    Between making and locking, another run that tidies up may take it for abandoned: then it is gone, or that run has its lock. And two
    containers have processes of the same number. Then a random number more makes the next try.
    """
    folder = f"{prefix}{os.getpid()}"
    while True:
        with suppress(FileExistsError):
            os.mkdir(folder)
            with suppress(BlockingIOError, FileNotFoundError):
                descriptor = _lock(folder)
                if os.path.exists(folder):
                    return folder, descriptor
                _unlock(descriptor)
        folder = f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"


def _remove_abandoned(folder: str) -> None:
    """Remove what a run that was killed has left: a living one holds its lock."""
    with suppress(BlockingIOError, FileNotFoundError):
        descriptor = _lock(folder)
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            _unlock(descriptor)


def _lock(folder: str) -> int | None:
    """A descriptor that holds the lock of a folder; None where there are no such locks.

    Raises BlockingIOError where somebody else has it, FileNotFoundError where the folder is gone.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
