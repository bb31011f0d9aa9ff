"""Where compiled code is kept: a private folder for each state of the sources, and the end of those that nobody uses any more."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import sys
import time
from pathlib import Path

import llvmlite
import llvmlite.binding
import numba

from qwenaudio_np import quantised

DAY = 86400  # seconds
UNUSED = 30 * DAY
_FOLDER = re.compile(r"[0-9a-f]{24}")  # what fingerprint() looks like
# What compile_cache.py and Numba write: an index, codes, their checksum; names while writing; what earlier versions wrote (bin).
_FILE = re.compile(r"[0-9a-f]{32}\.(nbi|\d+\.nbc|sha256|bin)(\.tmp\..*)?|tmp[a-z0-9_]{8}")


# Numba's settings that shape code. Whoever checks bounds must not get code that does not, nor anybody else code that does.
_SETTINGS = ("CPU_NAME", "CPU_FEATURES", "OPT", "ENABLE_AVX", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")


def fingerprint() -> str:
    """A name for everything that compiled code depends on: the sources of kernels and of the constants that they take from a definition,
    Python and compiler versions, this CPU, Numba's settings."""
    binding, settings = llvmlite.binding, [getattr(numba.config, name, None) for name in _SETTINGS]
    told = hashlib.sha256(f"{sys.version} {numba.__version__} {llvmlite.__version__} {binding.get_host_cpu_name()}".encode())
    told.update(f"{binding.get_host_cpu_features().flatten()} {settings}".encode())
    for source in (*sorted(Path(__file__).parent.glob("*.py")), Path(quantised.__file__)):
        told.update(source.name.encode() + b"\0" + source.read_bytes())
    return told.hexdigest()[:24]


def private_folder() -> Path | None:
    """$XDG_CACHE_HOME (or ~/.cache)/qwenaudio_np/<fingerprint>, made if need be; None where no such folder is this user's alone."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (base if base.is_absolute() else Path.home() / ".cache") / "qwenaudio_np" / fingerprint()
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        new = not folder.exists()
        for made in (folder.parent, folder):
            made.mkdir(mode=0o700, exist_ok=True)
            if not _is_private(made):
                return None
        if new or time.time() - folder.stat().st_mtime > DAY:
            _tidy(folder)
        return folder
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None


def _is_private(folder: Path) -> bool:
    """A real folder, this user's, that nobody else may write to. (Windows has neither such owners nor such modes.)"""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return False
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def _tidy(folder: Path) -> None:
    """Once a day and for each new version: this folder is in use, which its time of change shall say, and old ones may go."""
    with contextlib.suppress(OSError):  # a folder that can only be read serves all the same
        os.utime(folder)
        remove_unused(folder.parent)


def remove_unused(base: Path) -> None:
    """Remove the folders of other versions in `base` that were not used for UNUSED seconds.

    Only this user's own private folders with such names as are given here, in them only such files, and nothing behind a link; a
    folder that holds anything else stays. A program that still uses one compiles again what it needs.
    """
    for folder in base.iterdir():
        with contextlib.suppress(OSError):  # somebody else was quicker, or it holds something else
            if _FOLDER.fullmatch(folder.name) and _is_private(folder) and time.time() - folder.lstat().st_mtime > UNUSED:
                for file in folder.iterdir():
                    if _FILE.fullmatch(file.name):
                        file.unlink()
                folder.rmdir()
