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

parallel, board, Team = part("parallel"), part("board"), part("team").Team
look, add_on, pause = board.look, board.add_on, board.pause
MUCH = parallel.INLINE + 1  # multiply-adds of a piece, enough to be shared


@parallel.shared
def count(piece: int, counts: Any) -> None:
    """Each piece is counted in a place of its own."""
    add_on(counts, piece, 1)


@parallel.shared
def meet(piece: int, came: Any, saw: Any) -> None:
    """A piece ends when two have begun, or after a second or two; whether it saw the other."""
    add_on(came, 0, 1)
    for _ in range(1 << 26):
        if look(came, 0) >= 2:
            saw[piece] = 1
            break
        pause()


@parallel.shared
def dawdle(piece: int, came: Any, done: Any) -> None:
    """Both begin; whoever came first is done at once, the other much later."""
    order = add_on(came, 0, 1)
    for _ in range(1 << 26):
        if look(came, 0) >= 2:
            break
        pause()
    if order > 0:
        for _ in range(1 << 20):
            pause()
    done[piece] = 1


@parallel.shared
def hungry(piece: int, sizes: Any, out: Any) -> None:
    """Each piece takes memory, the last more than there is."""
    out[piece] = len(np.zeros(sizes[piece]))


def met() -> bool:
    """Whether two threads are at work at the same time."""
    parallel.run(meet, (np.full(1, 2), np.zeros(2)), 2, MUCH)  # compiled, and helpers awake
    came, saw = np.zeros(1, np.int64), np.zeros(2)
    parallel.run(meet, (came, saw), 2, MUCH)
    return bool(saw.all())


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
        assert met()


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
    assert met()
    for _ in range(9):
        came, done = np.zeros(1, np.int64), np.zeros(2, np.int64)
        parallel.run(dawdle, (came, done), 2, MUCH)
        assert done.all()


@compiled_only
@pytest.mark.parametrize("threads", [1, 2])
def test_no_memory_for_a_buffer_is_an_error(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_threads", threads)
    sizes, out = np.array([1, 2, 1 << 58]), np.zeros(3)
    for _ in range(2):
        with pytest.raises(MemoryError, match="buffers of a compiled operation"):
            parallel.run(hungry, (sizes, out), 3, MUCH)
    parallel.run(hungry, (sizes, out), 2, MUCH)
    assert out[:2].tolist() == [1, 2]


def test_small_work_stays_on_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_helpers", None)  # not called
    counts = np.zeros(3, np.int64)
    parallel.run(count, (counts,), 3, parallel.INLINE // 3)
    assert (counts == 1).all()


@compiled_only
@pytest.mark.parametrize("method", ["lend", "wait", "run"])
def test_after_an_interruption_everything_works(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the helpers are taken, awaited, or between two calls of compiled code: the pieces behind are not computed."""
    original, calls = getattr(Team, method), []

    def interrupted(team: Any, *arguments: Any) -> Any:
        calls.append(original(team, *arguments))
        if len(calls) == 3 or method == "lend":
            raise KeyboardInterrupt
        return calls[-1]

    counts = np.zeros(1000, np.int64)
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "LONGEST", 1)
        patch.setattr(Team, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            parallel.run(count, (counts,), 1000, MUCH)
    assert counts.sum() < 1000 and not parallel._team.owner
    assert met() and counts.max() <= 1


@compiled_only
def test_whoever_does_not_get_the_helpers_works_alone() -> None:
    assert met()
    somebody = object()
    assert parallel._team.lend(somebody)
    counts = np.zeros(50, np.int64)
    parallel.run(count, (counts,), 50, MUCH)
    assert (counts == 1).all() and parallel._team.owner == {"is": somebody}
    came, saw = np.full(1, -7), np.zeros(2)
    parallel.run(meet, (came, saw), 2, MUCH)  # one after the other: nobody else came
    assert came[0] == -5 and not saw.any()
    parallel._team.owner.clear()


@compiled_only
def test_several_python_threads_at_once() -> None:
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


FORK = """
import os
from tests.test_kernel_threads import met, parallel
parallel._threads = 2
assert met()
child = os.fork()
if child == 0:
    os._exit(7 if met() else 1)
assert met()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
EXIT = """
import atexit
atexit.register(lambda: print(parallel._team, len(helpers), any(thread.is_alive() for thread in helpers)))  # the last that is called
from tests.test_kernel_threads import met, parallel
parallel._threads = 2
assert met()
helpers = parallel._team.threads
"""


def ran(program: str, cache: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout


@compiled_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_starts_its_own_helpers(tmp_path: Path) -> None:
    assert ran(FORK, tmp_path) == "7\n"


@compiled_only
def test_a_program_ends_while_helpers_watch_the_board(tmp_path: Path) -> None:
    assert ran(EXIT, tmp_path) == "None 1 False\n"
