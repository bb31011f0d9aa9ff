"""How many threads NumPy's matrix products may use; the compiled kernels have their own `set_threads`. Both hold for the whole process."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

from qwenaudio_np.errors import UsageError, value_of

MAX_THREADS = 1024
_ENVIRONMENT = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")
_limits: list[Any] = []  # of threadpoolctl, kept as long as they hold
_limited_to: int | None = None  # by the latest call that did something; None: nothing was limited here


class ThreadsWarning(UserWarning):
    """A number of threads that NumPy's products cannot be held to."""


def check_threads(threads: object) -> None:
    """Raise UsageError unless `threads` is None or a sensible count."""
    count = index(threads) if isinstance(threads, SupportsIndex) and not isinstance(threads, bool) else 0  # NumPy's numbers too
    if threads is not None and not 1 <= count <= MAX_THREADS:
        raise UsageError(f"--threads is {value_of(threads)}, expected a whole number from 1 to {MAX_THREADS}")


def limit_blas(threads: int | None) -> None:
    """Limit NumPy's products in this process; the latest call counts. None undoes an earlier number: the cores this process may keep busy.
    Where nothing was limited here, None leaves what whoever started the process has said in the environment.

    By the environment where NumPy is not loaded yet (BLAS reads it once: the command line comes in time), else by threadpoolctl. Where
    that is not installed, or does not know this BLAS, a number gives a ThreadsWarning that nothing changes, and None does nothing.
    """
    global _limited_to
    check_threads(threads)
    count = threads or usable_cores()
    if threads == _limited_to and (threads is not None or count == _allowed_cores() or any(name in os.environ for name in _ENVIRONMENT)):
        return
    if "numpy" not in sys.modules:
        for name in _ENVIRONMENT:
            os.environ[name] = str(count)
    elif _environment_says(count):
        return  # nothing is limited here, so there is nothing to take back later
    elif not _limit_loaded(count):
        if threads is None and _limited_to is None:
            return  # nobody asked for it
        warnings.warn(
            f"threads={threads} does not reach NumPy's own matrix products: NumPy was loaded before, and threadpoolctl is not installed "
            f"or does not know its BLAS; install threadpoolctl, or set OMP_NUM_THREADS={count} before Python starts",
            ThreadsWarning,
            stacklevel=3,
        )
        return
    _limited_to = threads


def usable_cores(system: Path = Path("/")) -> int:
    """Cores that this process may run on, where the system tells (`taskset`), at most as many as its containers may keep busy; else all
    there are. `system` is the root of the file system."""
    return min([_allowed_cores(), *_quotas(system)])


def _allowed_cores() -> int:
    """Cores that this process may run on, which BLAS counts too."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(system: Path) -> Iterator[int]:
    """The processor time that each control group (version 2) around this process may take, in whole cores."""
    try:
        groups = (system / "proc/self/cgroup").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return
    mount = system / "sys/fs/cgroup"
    for path in (line.removeprefix("0::").lstrip("/") for line in groups if line.startswith("0::")):
        for group in (mount / path, *(mount / path).parents):  # a limit set higher up holds too
            with suppress(OSError, ValueError):  # none is set, or it is "max"
                quota, period = map(int, (group / "cpu.max").read_text(encoding="ascii").split())
                yield max(1, -(-quota // period))
            if group == mount:
                break


def _environment_says(count: int) -> bool:
    """Whether whoever started this process asked for this number, and nothing was limited here since."""
    return _limited_to is None and {os.environ[name] for name in _ENVIRONMENT if name in os.environ} == {str(count)}


def _limit_loaded(count: int) -> bool:
    """Limit the BLAS that is loaded already; False where that cannot be done."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return False
    import threadpoolctl

    if not any(library["user_api"] == "blas" for library in threadpoolctl.threadpool_info()):
        return False
    _limits[:] = [threadpoolctl.threadpool_limits(count)]
    return True
