"""Whether a request to convert makes sense, before anything large is read; and which files it reads from, so that none is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from qwenaudio_np.errors import UsageError, shown

from .source_file import SourceFile
from .weight_types import WEIGHT_TYPES

MIN_SHARD_BYTES = 1000

Identity = tuple[int, int]  # device and inode: equal for two names of one file


def require_paths(**paths: str | Path | None) -> None:
    """Raise UsageError for an empty name, which to pathlib would be the current folder, and for one that no system can have.

    None is an option that was not given.
    """
    for what, path in paths.items():
        if path is not None and not os.fspath(path):
            raise UsageError(f"{what} is an empty name, expected a file or folder; write . for the current folder")
        if path is not None and "\0" in os.fspath(path):
            raise UsageError(f"{what} {shown(path)} holds a NUL character, expected the name of a file or folder")


def check_request(source: Path, target: Path, weights: str | None, shard_size: int, seed: int) -> None:
    """Raise UsageError for values out of range, a source that is not there, or a destination that is the source."""
    if weights is not None and weights not in WEIGHT_TYPES:
        raise UsageError(f"unknown type of weights {shown(weights)}, expected one of: {', '.join(WEIGHT_TYPES)}")
    if shard_size < MIN_SHARD_BYTES:
        raise UsageError(f"shard size is {shard_size} bytes, expected at least {MIN_SHARD_BYTES}")
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed is {seed}, expected 0 to 2^64 - 1")
    if not source.exists():
        raise UsageError(f"{shown(source)}: no such file or folder, expected a checkpoint")
    origin, place = Path(os.path.realpath(source)), Path(os.path.realpath(target))  # Path.resolve stops at links that lead in a circle
    if place == origin or place in origin.parents:
        raise UsageError(f"{shown(target)} is where the checkpoint comes from; choose another destination")


def files_read(opened: Iterable[SourceFile], folders: Iterable[str | Path]) -> set[Identity]:
    """The files that a conversion reads: those opened, and what stands in `folders`, links followed."""
    found = {file.identity for file in opened}
    for folder in map(Path, folders):
        for path in folder.iterdir() if folder.is_dir() else ():
            with suppress(OSError):  # a link to nothing
                status = path.stat()
                found.add((status.st_dev, status.st_ino))
    return found
