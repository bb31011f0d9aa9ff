"""A folder that appears whole or not at all, for work that takes long: locked, resumable, renamed at the end.

Everything is made in `.NAME.converting` beside the destination, under a lock that ends with the process, however it ends.
What a killed run left there is found by the next one, which decides what of it is good.

    .NAME.converting          the user's own folder, closed to others while work is in it
        made_by_qwenaudio_np  says that all of this was made here and may be deleted; made first, deleted last
        new                   the folder being filled
        progress.json         the notes by which new can be resumed, aside for the moment of the last rename
        old                   the replaced folder, for the moment between two renames (only with force)
    .NAME.converting.lock     held while a run works; holds its process number

Anything else under these two names, a link above all, is left as it is and refused.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qwenaudio_np.errors import QwenAudioError, ResourceError, UsageError, shown, shown_size

from .file_lock import locked
from .request import Identity
from .safetensors_writer import sync_folder

SPARE = 0.05  # of the bytes to be written that must stay free on the disk
MARKER = "made_by_qwenaudio_np"


@contextmanager
def workplace(
    target: Path, own_files: Collection[str], force: bool, read_from: Collection[Identity] = (), notes: str | None = None
) -> Iterator[Path]:
    """Yield the folder to fill; if the block ends well it becomes `target`, with the rights of an existing one.

    `notes` is a file in it by which it can be resumed, deleted at the very end. The folder stays, to be resumed, after an
    interruption and where the disk refused; after an error in the input it is deleted, and in every case without notes.

    With `force` an existing `target` is replaced if it holds nothing but safetensors files and `own_files`, none of which
    is a file of `read_from`.
    Raises UsageError (target or the names beside it in use, or another run works on it), ResourceError (the disk refuses).
    """
    if not target.name:
        raise UsageError(f"{shown(target)} is the whole disk, which cannot be replaced; choose a folder in it")
    if not target.parent.is_dir():
        raise UsageError(f"{shown(target.parent)} is not an existing folder; make it first")
    place = _place(target)
    new, old = place / "new", place / "old"
    with _translated(target), locked(place.with_name(place.name + ".lock"), target):
        _require_ours(place)
        _recover(target, place, notes)
        _require_free(target, own_files, force, read_from)
        if not notes:  # what a killed run left
            shutil.rmtree(new, ignore_errors=True)
        try:
            _make(place)
            yield new
            sync_folder(new)
            _require_still_free(target, own_files, force, read_from)
            if target.exists():
                rights = stat.S_IMODE(target.stat().st_mode)
                target.rename(old)
                new.chmod(rights)  # a folder that was closed to others stays closed
            if notes:
                (new / notes).rename(place / notes)
            new.rename(target)
            sync_folder(target.parent)
        except BaseException as failure:
            if not notes or (isinstance(failure, QwenAudioError) and not isinstance(failure, ResourceError)):
                shutil.rmtree(new, ignore_errors=True)
            raise
        finally:
            _recover(target, place, notes)


def what_is_kept(target: Path) -> str:
    """Where the work for `target` stands that the next run resumes, and how, as the end of a message; "" if there is none."""
    new = _place(target) / "new"
    if not new.is_dir() or not os.listdir(new):
        return ""
    return f"what is finished is kept in {shown(_place(target))}, and the same command goes on from there"


def left_over(target: Path) -> int:
    """Bytes of what an earlier run for `target` left, all of which the next one uses or deletes."""
    if not target.name:  # the whole disk; `workplace` refuses it
        return 0
    new = _place(target) / "new"
    sizes = (os.lstat(path) for path in new.iterdir()) if new.is_dir() else ()
    return sum(status.st_size for status in sizes if stat.S_ISREG(status.st_mode))


def _place(target: Path) -> Path:
    return target.with_name(f".{target.name}.converting")


@contextmanager
def _translated(target: Path) -> Iterator[None]:
    """What the system refuses, as a ResourceError; one that leaves work to resume says so."""
    try:
        yield
    except (OSError, ResourceError) as failure:
        reason = (failure.strerror or "unknown error").lower() if isinstance(failure, OSError) else ""
        told = [f"cannot write {shown(target)}: {reason}" if reason else str(failure), what_is_kept(target)]
        raise ResourceError("; ".join(filter(None, told))) from None


def require_disk(folder: Path, needed: int) -> None:
    """Raise ResourceError if the disk under `folder` has less than `needed` bytes and a little more."""
    needed, free = int(needed * (1 + SPARE)), shutil.disk_usage(folder).free
    if needed > free:
        sizes = f"{shown_size(needed)} needed, {shown_size(free)} free"
        raise ResourceError(f"not enough disk space in {shown(folder)}: {sizes}; choose another disk")


def _require_ours(place: Path) -> None:
    """Raise UsageError unless `place` is free, or a folder made here: what is in it may be deleted or moved to the destination.

    Its name can be foreseen, so anybody who may write beside the destination could have put a link or a folder there.
    """
    if not os.path.lexists(place):
        return
    status = os.lstat(place)
    if not stat.S_ISDIR(status.st_mode):
        what = "is not a folder"
    elif hasattr(os, "getuid") and status.st_uid != os.getuid():
        what = "belongs to another user"
    elif hasattr(os, "getuid") and status.st_mode & 0o022:
        what = "can be written by other users"
    elif os.listdir(place) and not (os.path.lexists(place / MARKER) and stat.S_ISREG(os.lstat(place / MARKER).st_mode)):
        what = f"was not made by this program (it has no {MARKER})"
    else:
        return
    raise UsageError(f"{shown(place)} is needed for work in progress, but {what}; move it away, or choose another destination")


def _make(place: Path) -> None:
    """The work folder with its marker. It is closed to others; the new folder in it gets the usual rights."""
    if not place.exists():
        place.mkdir(0o700)
    (place / MARKER).touch()
    (place / "new").mkdir(exist_ok=True)


def _recover(target: Path, place: Path, notes: str | None) -> None:
    """A run that ended between the renames left the old folder and the notes aside: put them back. One that ended later left both over.

    Then nothing of the work folder stays, unless there is something to resume.
    """
    old = place / "old"
    if old.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    if notes and (place / notes).exists():
        if (place / "new").exists():
            (place / notes).rename(place / "new" / notes)
        else:
            (place / notes).unlink()
    with suppress(OSError):  # not empty, or not there
        (place / "new").rmdir()
    if place.exists() and set(os.listdir(place)) <= {MARKER}:
        (place / MARKER).unlink(missing_ok=True)
        place.rmdir()


def _require_still_free(target: Path, own_files: Collection[str], force: bool, read_from: Collection[Identity]) -> None:
    """Hours later somebody may have put other things there. Raises ResourceError, after which the work can be resumed."""
    try:
        _require_free(target, own_files, force, read_from)
    except UsageError as failure:
        raise ResourceError(str(failure)) from None


def _require_free(target: Path, own_files: Collection[str], force: bool, read_from: Collection[Identity]) -> None:
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{shown(target)} exists and is not a folder; choose another name")
    if os.path.ismount(target):
        raise UsageError(f"{shown(target)} is where a disk is mounted, which cannot be replaced; choose a folder in it")
    if not os.access(target, os.W_OK):
        raise UsageError(f"{shown(target)} is protected against writing, and cannot be replaced; choose another folder")
    for path in sorted(target.iterdir()):
        status = os.lstat(path)
        if (path.name not in own_files and path.suffix != ".safetensors") or not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{shown(target)} holds {shown(path.name)}, which is no part of a checkpoint made here; choose another folder")
        if (status.st_dev, status.st_ino) in read_from:
            raise UsageError(f"{shown(target)} holds {shown(path.name)}, which the checkpoint comes from; choose another destination")
    if any(target.iterdir()) and not force:
        raise UsageError(f"{shown(target)} already holds a checkpoint; choose another folder or replace it with --force")
