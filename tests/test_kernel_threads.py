"""How kernels share their pieces among threads: every piece once, nobody waits for ever, nothing outlives the process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernel_parts import ROOT, compiled_only, part

parallel, board = part("parallel"), part("board")
look, add_on, pause = board.look, board.add_on, board.pause
MUCH = parallel.INLINE + 1  # multiply-adds of a piece, enough to be shared


@parallel.shared
def count(piece: int, counts: Any) -> None:
    """Each piece is counted in a place of its own."""
    add_on(counts, piece, 1)


@parallel.shared
def meet(piece: int, came: Any) -> None:
    """A piece ends only when two have begun, or after seconds."""
    add_on(came, 0, 1)
    for _ in range(1 << 27):
        if look(came, 0) >= 2:
            break
        pause()


@parallel.shared
def dawdle(piece: int, began: Any, done: Any) -> None:
    """Whoever begins first is done at once, the other much later."""
    if add_on(began, 0, 1) > 0:
        for _ in range(1 << 20):
            pause()
    done[piece] = 1


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(parallel, "_threads", 2)
    yield
    parallel._dismiss()  # the next test begins with helpers that nobody has asked yet


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("pieces", [0, 1, 2, 1000])
def test_every_piece_is_computed_once(pieces: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_threads", threads)
    for longest in (1, 10 * MUCH, 1 << 28):  # so much work in one call
        monkeypatch.setattr(parallel, "LONGEST", longest)
        counts = np.zeros(pieces + 1, np.int64)
        parallel.run(count, (counts,), pieces, MUCH)
        assert (counts == [1] * pieces + [0]).all()


@compiled_only
def test_two_threads_are_at_work_at_the_same_time() -> None:
    for pause_before in (0.0, 0.0, 0.05):  # helpers that watch the board, and one that has gone to sleep
        time.sleep(pause_before)
        came = np.zeros(1, np.int64)
        parallel.run(meet, (came,), 2, MUCH)
        assert came[0] == 2


@compiled_only
def test_a_helper_that_nobody_calls_goes_to_sleep() -> None:
    parallel.run(count, (np.zeros(2, np.int64),), 2, MUCH)
    deadline = time.monotonic() + 30
    while not parallel._team.asleep and time.monotonic() < deadline:
        time.sleep(0.001)
    spent = time.process_time()
    time.sleep(0.2)
    assert len(parallel._team.asleep) == 1 and time.process_time() - spent < 0.1


@compiled_only
def test_a_result_is_whole_however_late_a_helper_is() -> None:
    for _ in range(3):
        began, done = np.zeros(1, np.int64), np.zeros(2, np.int64)
        parallel.run(dawdle, (began, done), 2, MUCH)
        assert done.all()


def test_small_work_stays_on_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_helpers", None)  # not called
    counts = np.zeros(3, np.int64)
    parallel.run(count, (counts,), 3, parallel.INLINE // 3)
    assert (counts == 1).all()


@compiled_only
def test_after_an_interruption_everything_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two calls of compiled code: the pieces behind are not computed, and the helpers are there for the next operation."""
    monkeypatch.setattr(parallel, "LONGEST", 1)
    calls, wait = [], parallel._Team.wait

    def interrupted(team: Any) -> None:
        wait(team)
        calls.append(team)
        if len(calls) == 5:
            raise KeyboardInterrupt

    counts = np.zeros(1000, np.int64)
    with monkeypatch.context() as patch:
        patch.setattr(parallel._Team, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            parallel.run(count, (counts,), 1000, MUCH)
    assert 0 < counts.sum() < 1000
    came = np.zeros(1, np.int64)
    parallel.run(meet, (came,), 2, MUCH)
    assert came[0] == 2 and counts.max() == 1


@compiled_only
def test_python_threads_do_not_wait_for_one_another() -> None:
    """One has the helpers, the other works alone, and both are right."""
    wrong = []

    def repeat() -> None:
        for _ in range(200):
            counts = np.zeros(50, np.int64)
            parallel.run(count, (counts,), 50, MUCH)
            wrong.extend(counts[counts != 1])

    threads = [threading.Thread(target=repeat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@compiled_only
def test_other_numbers_of_threads_take_other_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads in (3, 2, 3):
        monkeypatch.setattr(parallel, "_threads", threads)
        parallel.run(count, (np.zeros(9, np.int64),), 9, MUCH)
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("qwenaudio_np-kernel")]) == threads - 1


USE = """
import os, threading
import numpy as np
from qwenaudio_np.kernels import parallel
from qwenaudio_np.kernels.norms import rms_norm
parallel._threads, parallel.INLINE = 2, 0
x = np.ones((100, 64), np.float32)
def use():
    assert abs(rms_norm(x, x[0], 0.0) - 1).max() < 1e-6
use()
"""
FORK = """
child = os.fork()
if child == 0:
    use()
    os._exit(7)
use()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def ran(program: str, cache: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout


@compiled_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_starts_its_own_helpers(tmp_path: Path) -> None:
    assert ran(USE + FORK, tmp_path) == "7\n"


@compiled_only
def test_a_program_ends_while_helpers_watch_the_board(tmp_path: Path) -> None:
    assert ran(USE + "print(parallel._team.helpers)", tmp_path) == "1\n"
