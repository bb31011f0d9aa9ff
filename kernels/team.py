"""Threads that help: they watch a board for work, and take part in what the calling thread lays on it.

The calling thread opens a call (board.py), works, closes it, and waits until nobody is INSIDE any more. A helper looks at the board all
the time for a while (SPINS), and sleeps when nothing comes. A helper first counts itself INSIDE, and then checks that the call is still
open: either the caller sees the count and waits, or the helper sees that the call is closed, and leaves.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from .board import add_on, give_way, look, new_board, pause, put, take_part
from .compile_cache import inlined, kernel
from .simd_python import CALL, FAILED, INSIDE

SPINS = 20000  # looks at the board before a helper goes to sleep: about half a millisecond
PATIENCE = 2000  # looks at the board before compiled code goes back to Python, to wait for a helper there
POLITE = 128  # looks at the board after which whoever waits lets another thread have the core: there may be fewer cores than threads


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


class Team:
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
        self.board[FAILED] = 0  # the same: nobody asked how that call went
        self.arguments = arguments
        self.calls += calls
        if self.asleep:
            self._wake()
        if not function(self.board, self.frame, self.calls - calls + 1, *arguments):
            self.wait()
        self.arguments = ()
        require_done(self.board)

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


def require_done(board: Any) -> None:
    """Raise MemoryError if a kernel found no room for its buffers: what it should have computed is not there."""
    if board[FAILED]:
        board[FAILED] = 0
        raise MemoryError("no memory is left for the buffers of a compiled operation")


def _let_others_run() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)
