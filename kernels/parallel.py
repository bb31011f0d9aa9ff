"""Who computes what: the pieces of an operation, shared among threads in compiled code.

An operation is one call from Python. Its kernel computes one piece; `shared` makes of it compiled code that takes piece after piece
off a counter, and all helpers, threads of our own, do the same until none is left. They meet over a board (board.py): the calling
thread lays the operation on it, helpers look at it all the time for a while (SPINS), and sleep when nothing comes. So two
operations that follow one another cost a microsecond between them, not the hundred that it takes to wake a thread and to pass Python's
global lock on: a new token takes some 300 operations.

Compared with Numba's own parallel loops this compiles several times faster, and any number of Python threads may call at once
(one of Numba's threading layers aborts the process there): one of them has the helpers, the others work alone. Ctrl-C is answered between
two calls of compiled code, of which none works longer than LONGEST. Every number of a result is computed by one thread in
an order that does not depend on the pieces, so it is the same for any number of threads.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numba

from .board import add_on, give_way, look, new_board, offer, pause, put, take_part
from .compile_cache import inlined, kernel
from .simd_python import CALL, FAILED, INSIDE, LAST, NEXT

INLINE = 1 << 16  # multiply-adds below which sharing costs more than it saves
# Multiply-adds of one call, on each thread: 35 ms for the slowest kernel on a CPU with AVX2 (8e9 a second), 200 ms on one a sixth as fast.
LONGEST = 1 << 28
SPINS = 20000  # looks at the board before a helper goes to sleep: about half a millisecond
PATIENCE = 2000  # looks at the board before compiled code goes back to Python, to wait for a helper there
POLITE = 128  # looks at the board after which whoever waits lets another thread have the core: there may be fewer cores than threads

# What `run` takes: a `shared` kernel, its arguments, the number of its pieces, and the multiply-adds of the largest.
Pieces = tuple[Any, tuple[Any, ...], int, int]
# weight, bias (float32, empty for none), y -> the pieces that fill y with a product of weight
Product = Callable[[Any, Any, Any], Pieces]

_threads: int = numba.config.NUMBA_NUM_THREADS


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


@inlined
def wait_a_little(looks: int) -> None:
    """Between one look at the board and the next."""
    if looks % POLITE == POLITE - 1:
        give_way()
    else:
        pause()


@inlined
def closed(board: Any) -> bool:
    """Nobody may come any more; whether all who came are gone, within PATIENCE."""
    put(board, CALL, 0)
    for looks in range(PATIENCE):
        if look(board, INSIDE) == 0:
            return True
        wait_a_little(looks)
    return False


@inlined
def settle(board: Any) -> None:
    """Until no helper is at work any more, for compiled code that has no other way to wait."""
    looks = 0
    while look(board, INSIDE) != 0:
        wait_a_little(looks)
        looks += 1


@kernel
def _serve(board: Any, frame: Any, last: int) -> int:
    """Take part in every call laid on the board, until none came for a while; `last` is the latest that this thread has seen."""
    looks = 0
    while looks < SPINS:
        call = look(board, CALL)
        if call != 0 and call != last:
            add_on(board, INSIDE, 1)
            if look(board, CALL) == call:  # not closed before the caller could see that somebody came
                take_part(board, frame)
            add_on(board, INSIDE, -1)
            last, looks = call, 0
        wait_a_little(looks)
        looks += 1
    return last


class _Team:
    """A board and the helpers that watch it."""

    def __init__(self, helpers: int) -> None:
        self.helpers = helpers
        self.board, self.frame = new_board()
        self.owner: dict[str, object] = {}  # "is" whoever has the helpers
        self.calls = 0
        self.dismissed = False
        self.asleep: list[Any] = []  # a held lock for each sleeping helper, which waits for it
        self.arguments: tuple[Any, ...] = ()  # alive as long as a helper may read them
        self.threads = [threading.Thread(target=self._help, name=f"qwenaudio_np-kernel-{i}", daemon=True) for i in range(helpers)]
        for thread in self.threads:
            thread.start()

    def _help(self) -> None:
        last = 0
        while not self.dismissed:
            calls = self.calls
            last = _serve(self.board, self.frame, last)
            bell = threading.Lock()
            bell.acquire()
            self.asleep.append(bell)  # first this, then a look at `calls`; who calls does it the other way round, so nobody is missed
            if self.calls != calls:
                self._wake()
            bell.acquire()

    def _wake(self) -> None:
        while self.asleep:
            try:
                self.asleep.pop().release()
            except IndexError:  # another thread was quicker
                return

    def run(self, function: Any, arguments: tuple[Any, ...], calls: int = 1) -> None:
        """One call of compiled code, in which helpers are called so many times, by whoever has them."""
        self.wait()  # only where Ctrl-C ended the waiting below
        self.arguments = arguments
        self.calls += calls
        if self.asleep:
            self._wake()
        if not function(self.board, self.frame, self.calls - calls + 1, *arguments):
            self.wait()
        self.arguments = ()
        _require_done(self.board)

    def wait(self) -> None:
        """Until no helper is at work any more."""
        while self.board[INSIDE]:
            _let_others_run()

    def lend(self, whom: object) -> bool:
        """Have the helpers, if nobody has them, until `owner` is cleared; `whom` is told apart by identity."""
        return self.owner.setdefault("is", whom) is whom

    def dismiss(self) -> None:
        """Have the helpers end."""
        self.dismissed = True
        self.calls += 1
        self._wake()
        for thread in self.threads:
            thread.join()


_team: _Team | None = None
_changing = threading.Lock()


def run(function: Any, arguments: tuple[Any, ...], pieces: int, cost: int) -> None:
    """Compute all `pieces` of a `shared` kernel, each of at most `cost` multiply-adds (or as much other work), on several threads if
    that is worth it. Raises MemoryError if there is no room for a kernel's buffers."""
    threads = min(_threads, pieces) if pieces * cost > INLINE else 1

    def parts(threads: int) -> list[tuple[Any, ...]]:
        most = max(threads * LONGEST // max(cost, 1), 1)  # pieces of one call
        return [(first, min(first + most, pieces), *arguments) for first in range(0, pieces, most)]

    _run(function, parts, threads, 1)


def whole(function: Any, arguments: tuple[Any, ...], calls: int, cost: int) -> None:
    """Call a kernel function(board, frame, call, *arguments) -> True, that runs `shared` ones itself: it may number them call, ...,
    call + calls - 1; or, where it is told 0, all 0. `cost`: multiply-adds of all of them. Raises MemoryError as `run` does."""
    _run(function, lambda threads: [arguments], _threads if cost > INLINE else 1, calls)


def _run(function: Any, parts: Callable[[int], list[tuple[Any, ...]]], threads: int, calls: int) -> None:
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
    board, frame = new_board()
    for arguments in parts(1):
        function(board, frame, 0, *arguments)
        _require_done(board)


def _require_done(board: Any) -> None:
    """Raise MemoryError if a kernel found no room for its buffers: what it should have computed is not there."""
    if board[FAILED]:
        board[FAILED] = 0
        raise MemoryError("no memory is left for the buffers of a compiled operation")


def _let_others_run() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)


def _helpers(count: int) -> _Team:
    """The team, with so many helpers."""
    global _team
    with _changing:
        if _team is None or _team.helpers != count:
            _dismiss()
            _team = _Team(count)
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
