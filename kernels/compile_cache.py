"""Compiled code on disk, so that only the first run pays for compiling. Private, checked, and never needed.

Numba's own cache does not do: it knows a function by its own file only (change a helper in another file, and the caller
still returns the old numbers), it runs whatever bytes it finds, and a damaged file ends the program. Here the folder's name
carries a hash of everything that shapes the code, beside Numba's files lies a checksum that is looked at before Numba looks
at them, the folder must be this user's alone, and whatever is odd means compiling again. Without a usable folder everything
works, only slower at the start.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching, compiler

from .cache_folder import private_folder


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call for each combination of argument types, or fetch it from the cache.

    It runs without Python's global lock. error_model: 1 / 0 is infinity, as in NumPy. No floating-point licences: NaN, infinities
    and the order of every sum are what the source says.
    """
    _require_own_name(function)
    compiled = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    if not numba.config.DISABLE_JIT:
        compiled._cache = _Cache(_FOLDER, function) if _FOLDER is not None else _NoCache()
    return compiled


def inlined(function: Callable[..., Any]) -> Any:
    """Part of a kernel, compiled into each one that calls it."""
    _require_own_name(function)
    return numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def _require_own_name(function: Callable[..., Any]) -> None:
    """Raise RuntimeError if another function is called like this one: a function that is made by another needs what made it in its name.

    Numba links the parts of compiled code by their names and a number that each process counts anew. Two processes that fill one cache may
    give one name and number to different parts, and a third would run the wrong one.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    made_of = (function.__code__, *(cell.cell_contents for cell in function.__closure__ or ()))
    if _names.setdefault(name, made_of) != made_of:
        raise RuntimeError(f"two different functions are called {name}; compiled code needs a name for each")


def made_once(make: Callable[..., Any]) -> Any:
    """functools.cache for what makes kernels, also where several threads ask at once: one name stands for one function."""
    cached = functools.cache(make)

    def get(*kind: Any) -> Any:
        with _making:
            return cached(*kind)

    return functools.update_wrapper(get, make)


def announce_compiling(notice: Callable[[str], object] | None) -> None:
    """Have `notice` called with one line when something is compiled for the first time in this process, and never again."""
    global _notice
    _notice = notice


def _announce() -> None:
    global _notice
    notice, _notice = _notice, None
    if notice is not None:
        kept = f"kept in {_FOLDER}" if _FOLDER is not None else "not kept: there is no private cache folder"
        notice(f"compiling kernels for this computer, once; {kept}")


class _NoCache(caching.NullCache):
    """What Numba asks where there is no folder."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        _announce()
        return None


class _Cache(caching.NullCache):
    """What Numba asks before it compiles, and tells afterwards: files of its own form, one set per function and argument types."""

    def __init__(self, folder: Path, function: Callable[..., Any]) -> None:
        self._folder, self._name = folder, f"{function.__module__}.{function.__qualname__}"

    def _files(self, signature: object) -> tuple[caching.IndexDataCacheFile, Path]:
        """Numba's reader and writer of one compiled function, and the file with the checksum of what it wrote."""
        base = hashlib.sha256(f"{self._name} {signature!r}".encode()).hexdigest()[:32]
        return caching.IndexDataCacheFile(str(self._folder), base, _STAMP), self._folder / f"{base}.sha256"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        with contextlib.suppress(Exception):  # whatever a damaged or foreign file leads to, the answer is to compile
            files, checksum = self._files(sig)
            if checksum.read_text() == _digest(checksum):
                return compiler.CompileResult._rebuild(target_context, *files.load(sig))
        _announce()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        # A full disk, or code that cannot be stored: the compiled function is in memory, nothing is lost but time.
        with contextlib.suppress(Exception):
            files, checksum = self._files(sig)
            for damaged in _compiled(checksum):  # Numba adds to the files it finds, and fails where it cannot read them
                damaged.unlink(missing_ok=True)
            files.save(sig, data._reduce())
            _write(checksum, _digest(checksum))


def _compiled(checksum: Path) -> list[Path]:
    """The files that a checksum stands for: an index and the code."""
    return sorted(checksum.parent.glob(f"{checksum.stem}.*nb[ic]"))


def _digest(checksum: Path) -> str:
    """The SHA-256 of the names and bytes of those files."""
    told = hashlib.sha256()
    for path in _compiled(checksum):
        told.update(path.name.encode() + b"\0" + path.read_bytes())
    return told.hexdigest()


def _write(path: Path, data: str) -> None:
    """All of it or nothing, also when two processes write the same file at once."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


_names: dict[str, tuple[Any, ...]] = {}
_making = threading.RLock()
_notice: Callable[[str], object] | None = None
_STAMP = "one"  # Numba's own sign of a source file's age; here the folder's name says more
_FOLDER = private_folder()
