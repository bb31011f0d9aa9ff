"""Who computes what: compiled kernels release Python's global lock, so plain Python threads run them side by side.

Compared with Numba's own parallel loops this compiles several times faster, any number of Python threads may call at once
(one of Numba's threading layers aborts the process there), and Ctrl-C is answered between two pieces. Every number of a
result is computed by one thread in an order that does not depend on the pieces, so it is the same for any thread count.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numba

INLINE = 1 << 20  # multiplications (or as much other work) below which waking threads costs more than it saves
# Multiply-adds of one piece at most: 35 ms for the slowest kernel on a CPU with AVX2 (8e9 a second), 200 ms on one a sixth as fast.
LONGEST = 1 << 28

_threads: int = numba.config.NUMBA_NUM_THREADS
_pool: ThreadPoolExecutor | None = None


def set_threads(n: int | None) -> None:
    """Use `n` threads from now on, in this whole process, at least 1 and at most what Numba has; None: all of them."""
    global _threads
    most = numba.config.NUMBA_NUM_THREADS
    _threads = most if n is None else min(max(n, 1), most)


def get_threads() -> int:
    """How many threads kernels use."""
    return _threads


def within(unit: int, cost: int) -> int:
    """How many things of `cost` multiply-adds each one piece may take on, for Ctrl-C to be answered soon: whole units, at least one."""
    return max(LONGEST // (unit * cost), 1) * unit


def run(piece: Callable[[int], object], pieces: int, work: int) -> None:
    """Call piece(0), ..., piece(pieces - 1), on several threads if `work` (multiplications in all) is worth it.

    The first exception, Ctrl-C included, is raised here once no thread is at work any more.
    """
    todo = iter(range(pieces))  # shared: advancing it is one atomic step under the global lock

    def work_off() -> None:
        try:
            for i in todo:
                piece(i)
        except BaseException:
            collections.deque(todo, maxlen=0)  # nobody shall begin what is left
            raise

    helpers = min(_threads, pieces) - 1 if work > INLINE else 0
    futures = [_workers().submit(work_off) for _ in range(helpers)]
    try:
        work_off()
    finally:
        _wait(futures)


def _wait(futures: list[Future[None]]) -> None:
    for future in futures:
        if not future.cancel():  # one that never began has nothing left to do
            future.result()


def _workers() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, "qwenaudio_np-kernel")
    return _pool


def _forget_workers() -> None:
    """Threads do not survive a fork: the child starts its own."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
