"""Who computes what: the pieces of an operation, shared among threads in compiled code.

An operation is one call from Python. Its kernel computes one piece; `shared` makes of it compiled code that takes piece after piece
off a counter, and all helpers, threads of our own, do the same until none is left (team.py). So two operations that follow one another
cost a microsecond between them, not the hundred that it takes to wake a thread and to pass Python's global lock on: a new token took some
300 operations.

Compared with Numba's own parallel loops this compiles several times faster, and any number of Python threads may call at once
(one of Numba's threading layers aborts the process there): one of them has the helpers, the others work alone. Ctrl-C is answered between
two calls of compiled code, which are kept short (LONGEST, SECONDS; or one decoder block, for one token). Every number of a result is
computed by one thread in an order that does not depend on the pieces, so it is the same for any number of threads.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numba

from qwenaudio_np.threads import usable_cores

from .board import new_board, offer
from .compile_cache import inlined, kernel
from .simd_python import FAILED, LAST, NEXT
from .team import Team, closed, require_done

INLINE = 1 << 16  # multiply-adds below which sharing costs more than it saves
# Multiply-adds of an operation's first call, on each thread: 35 ms for the slowest kernel on a CPU with AVX2 (8e9 a second), 200 ms on one
# a sixth as fast. The next ones are made to last so many seconds, for at the end of each call threads wait for one another.
LONGEST = 1 << 28
SECONDS = 0.05
GROWTH = 4  # times what the call before was, at most

# What `run` takes: a `shared` kernel, its arguments, the number of its pieces, and the multiply-adds of the largest.
Pieces = tuple[Any, tuple[Any, ...], int, int]
# weight, bias (float32, empty for none), y -> the pieces that fill y with a product of weight
Product = Callable[[Any, Any, Any], Pieces]

_most: int = min(numba.config.NUMBA_NUM_THREADS, usable_cores())  # more would wait for one another
_threads: int = _most


def set_threads(n: int | None) -> None:
    """Use `n` threads from now on, in this whole process, at least 1 and at most what Numba has and the cores are; None: all of them."""
    global _threads
    _threads = _most if n is None else int(min(max(n, 1), _most))


def get_threads() -> int:
    """How many threads kernels use."""
    return _threads


def within(unit: int, cost: int) -> int:
    """How many things of `cost` multiply-adds each one piece may take on, for Ctrl-C to be answered soon: whole units, at least one."""
    return max(LONGEST // (unit * cost), 1) * unit


def shared(piece: Callable[..., None]) -> Any:
    """A kernel piece(i, *arguments) -> one that `run` can share among threads."""
    one = inlined(piece)

    def pieces(board: Any, frame: Any, call: int, first: int, last: int, *arguments: Any) -> bool:
        board[NEXT], board[LAST] = first, last
        offer(board, frame, call, one, arguments)
        return call == 0 or closed(board)

    pieces.__qualname__, pieces.__module__ = f"{piece.__qualname__} pieces", piece.__module__
    made = kernel(pieces)
    made.piece = piece
    return made


_team: Team | None = None
_changing = threading.Lock()


def run(function: Any, arguments: tuple[Any, ...], pieces: int, cost: int) -> None:
    """Compute all `pieces` of a `shared` kernel, each of at most `cost` multiply-adds (or as much other work), on several threads if
    that is worth it. Raises MemoryError if there is no room for a kernel's buffers."""
    threads = min(_threads, pieces) if pieces * cost > INLINE else 1

    _run(function, lambda threads: _parts(arguments, pieces, cost, threads), threads, 1)


def _parts(arguments: tuple[Any, ...], pieces: int, cost: int, threads: int) -> Iterator[tuple[Any, ...]]:
    """The pieces, call by call. While one is computed this waits, so it knows how long each took."""
    first, count = 0, max(threads * LONGEST // max(cost, 1), 1)
    while first < pieces:
        began, last = time.perf_counter(), min(first + count, pieces)
        yield first, last, *arguments
        took = max(time.perf_counter() - began, 1e-9)
        first, count = last, max(int(count * min(SECONDS / took, GROWTH)), threads)


def whole(function: Any, arguments: tuple[Any, ...], calls: int, cost: int) -> None:
    """Call a kernel function(board, frame, call, *arguments) -> True, that runs `shared` ones itself, under the numbers call to
    call + calls - 1; a call of 0 means that nobody helps, and all have the number 0. `cost`: multiply-adds of all of them. Raises
    MemoryError as `run` does."""
    _run(function, lambda threads: [arguments], _threads if cost > INLINE else 1, calls)


def _run(function: Any, parts: Callable[[int], Iterable[tuple[Any, ...]]], threads: int, calls: int) -> None:
    """Call a kernel with the arguments of each part, with helpers if more than one thread is wanted and they are free."""
    team = _helpers(_threads - 1) if threads > 1 and not numba.config.DISABLE_JIT else None
    myself = object()
    try:
        if team is not None and team.lend(myself):
            for arguments in parts(threads):
                team.run(function, arguments, calls)
            return
    finally:  # no calls in here: behind each, Python would let Ctrl-C interrupt it, and the helpers were lent for ever
        if team is not None and "is" in team.owner and team.owner["is"] is myself:
            del team.owner["is"]
    board, frame = _own_board()
    for arguments in parts(1):
        function(board, frame, 0, *arguments)
        require_done(board)


_own = threading.local()


def _own_board() -> tuple[Any, Any]:
    """What this thread works on where nobody helps. Made once: behind a decoder block that takes 60 us, as long as a small operation."""
    if not hasattr(_own, "board"):
        _own.board = new_board()
    _own.board[0][FAILED] = 0  # Ctrl-C may have come between an operation that failed and the look at it
    return _own.board


def _helpers(count: int) -> Team:
    """The team, with so many helpers."""
    global _team
    with _changing:
        if _team is None or _team.helpers != count:
            _dismiss()
            _team = Team(count)
        return _team


def _dismiss() -> None:
    global _team
    team, _team = _team, None
    if team is None:
        return
    myself, until = object(), time.monotonic() + 1.0  # at the end of a program whoever has the helpers may never give them back
    while not team.lend(myself) and time.monotonic() < until:
        time.sleep(0.001)
    team.dismiss()


def _forget_helpers() -> None:
    """Threads do not survive a fork: the child starts its own."""
    global _team, _changing
    _team, _changing = None, threading.Lock()


atexit.register(_dismiss)  # before Python takes its memory apart, in which helpers look
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)
