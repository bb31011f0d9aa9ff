"""How many threads matrix products may use: one number for the process, and a word where NumPy cannot be held to it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np import backends, threads
from qwenaudio_np.errors import UsageError
from tests.cli_tools import TINY

NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A process in which NumPy is loaded, nothing was limited, and threadpoolctl is missing."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_limited_to", None)
    monkeypatch.setattr(threads, "_limits", [])
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "threadpoolctl" else found(name))
    yield monkeypatch


def with_threadpoolctl(patch: pytest.MonkeyPatch, api: str = "blas") -> list[int]:
    """A threadpoolctl that notes what it is told."""
    told: list[int] = []
    module: Any = types.ModuleType("threadpoolctl")
    module.threadpool_info = lambda: [{"user_api": api}]
    module.threadpool_limits = lambda limits: told.append(limits)
    patch.setitem(sys.modules, "threadpoolctl", module)
    patch.setattr(importlib.util, "find_spec", lambda name: module)
    return told


def test_without_threadpoolctl_a_warning_says_that_nothing_changes(fresh: pytest.MonkeyPatch) -> None:
    for _ in range(2):  # each time: it was not done the first time either
        with pytest.warns(threads.ThreadsWarning, match=r"threads=2 does not reach NumPy.*OMP_NUM_THREADS=2 before Python starts"):
            threads.limit_blas(2)
    assert not any(name in os.environ for name in NAMES)  # BLAS would not look there any more


def test_loading_the_reference_warns_too(fresh: pytest.MonkeyPatch) -> None:
    with pytest.warns(threads.ThreadsWarning) as told:
        qwenaudio_np.load(TINY, backend="reference", threads=1)
    assert [warning.filename for warning in told] == [__file__]  # whoever called load


@pytest.mark.parametrize("count", [1, 3])
def test_no_warning_where_the_environment_said_the_same_number(fresh: pytest.MonkeyPatch, count: int) -> None:
    fresh.setenv("OMP_NUM_THREADS", "3")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        threads.limit_blas(count)
    assert len(told) == (0 if count == 3 else 1)


def test_two_numbers_in_the_environment_prove_nothing(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("OMP_NUM_THREADS", "3")
    fresh.setenv("OPENBLAS_NUM_THREADS", "1")
    with pytest.warns(threads.ThreadsWarning):
        threads.limit_blas(3)


@pytest.mark.filterwarnings("error")
def test_the_latest_number_counts_and_none_takes_it_back(fresh: pytest.MonkeyPatch) -> None:
    told = with_threadpoolctl(fresh)
    for count in (None, 2, 2, 1, None, None):
        threads.limit_blas(count)
    assert told[:2] == [2, 1] and len(told) == 3


@pytest.mark.parametrize("tells", [True, False])
def test_all_cores_are_those_that_this_process_may_use(fresh: pytest.MonkeyPatch, tells: bool) -> None:
    told = with_threadpoolctl(fresh)
    fresh.setattr(os, "cpu_count", lambda: 64)
    if tells:
        fresh.setattr(os, "sched_getaffinity", lambda process: {3, 5, 9}, raising=False)
    else:
        fresh.delattr(os, "sched_getaffinity", raising=False)
    for count in (2, None):
        threads.limit_blas(count)
    assert told == [2, 3 if tells else 64]


@pytest.mark.filterwarnings("error")
def test_without_a_number_a_container_is_not_asked_for_more_than_it_may_keep_busy(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(threads, "usable_cores", lambda: 2)
    fresh.setattr(threads, "_allowed_cores", lambda: 64)
    threads.limit_blas(None)  # without threadpoolctl nothing can be done, and nobody asked
    told = with_threadpoolctl(fresh)
    threads.limit_blas(None)
    assert told == [2]
    fresh.setenv("OMP_NUM_THREADS", "9")
    threads.limit_blas(None)  # whoever started this process has said how many
    assert told == [2]


def test_a_blas_that_threadpoolctl_does_not_know(fresh: pytest.MonkeyPatch) -> None:
    told = with_threadpoolctl(fresh, api="openmp")
    with pytest.warns(threads.ThreadsWarning):
        threads.limit_blas(2)
    assert told == []


@pytest.mark.parametrize("wrong", [0, -1, 1025, True, 1.5, "2"])
def test_numbers_that_mean_nothing(fresh: pytest.MonkeyPatch, wrong: Any) -> None:
    with pytest.raises(UsageError, match="--threads"):
        threads.limit_blas(wrong)


def test_numpys_whole_numbers() -> None:
    threads.check_threads(np.int64(2))
    with pytest.raises(UsageError, match="--threads"):
        threads.check_threads(np.float64(2))


def test_before_numpy_is_loaded_the_environment_is_set() -> None:
    code = "import os; from qwenaudio_np.threads import limit_blas; limit_blas(3); limit_blas(3); import numpy; limit_blas(3)"
    show = f"; print([os.environ[name] for name in {NAMES!r}])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code + show], capture_output=True, text=True, check=True)
    assert done.stdout == "['3', '3', '3', '3', '3']\n"


@pytest.mark.filterwarnings("ignore::qwenaudio_np.threads.ThreadsWarning")
def test_kernels_use_what_the_latest_load_said() -> None:
    """One number for the process, whatever model is asked afterwards."""
    kernels: Any = backends.get("numba")
    every = kernels.get_threads()
    first = qwenaudio_np.load(TINY, threads=1)
    assert kernels.get_threads() == 1
    second = qwenaudio_np.load(TINY)
    assert kernels.get_threads() == every and first.ops is second.ops


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({}, 3),
        ({"a/b": "max 100000"}, 3),
        ({"a/b": "150000 100000"}, 2),  # one and a half
        ({"a/b": "max 100000", "a": "50000 100000"}, 1),
        ({"a/b": "400000 100000", "": "200000 100000"}, 2),
        ({"a/b": "nonsense"}, 3),
    ],
)
def test_a_container_with_less_processor_time_than_cores(
    limits: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/a/b").mkdir(parents=True)
    for group, limit in limits.items():
        (tmp_path / "sys/fs/cgroup" / group / "cpu.max").write_text(limit + "\n")
    assert threads.usable_cores(tmp_path) == 3  # nothing says in which group this process is
    (tmp_path / "proc/self/cgroup").write_text("1:cpu:/x\n0::/a/b\n")
    assert threads.usable_cores(tmp_path) == cores
