"""Runs a target over many inputs in a process of its own, with limits that end the process and not only the call.

An input fails if it ends in anything but success or one of this package's own errors of one line: another exception, the end of the
process, more than SECONDS, more than MEMORY_BYTES, or any of the EVENTS that reading never causes. The process writes the number of
each input into shared memory before it is read, so what was being read is known however it ends; a new one goes on behind it.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from qwenaudio_np.errors import QwenAudioError, ResourceError
from tests.fuzz.targets import Target

SECONDS = 5.0
MEMORY_BYTES = 1 << 30  # of address space, so a stricter limit than one on memory in use
EVENTS = ("exec", "compile", "import", "os.", "subprocess.", "socket.", "ctypes.", "pickle.", "marshal.", "code.", "shutil.", "webbrowser.")
ALLOWED = ("os.listdir", "os.scandir", "shutil.copyfile", "os.putenv")
_STATE = struct.Struct("<QQd")  # number of the input, how many were read without an error, the slowest's seconds


@dataclass
class Outcome:
    """`failures`: number of the input -> what happened."""

    count: int
    read: int = 0
    slowest: float = 0.0
    most_bytes: int = 0  # resident
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Inputs that ended in one of this package's errors."""
        return self.count - self.read - len(self.failures)


def survey(target: Target, made: Callable[[int], bytes], count: int, seconds: float = SECONDS, stop_after: int = 20) -> Outcome:
    """Read the inputs made(0) to made(count - 1); gives up after `stop_after` failures."""
    outcome, first = Outcome(count), 0
    while first < count and len(outcome.failures) < stop_after:
        shared = mmap.mmap(-1, 1 << 16)
        child = os.fork()
        if child == 0:
            os._exit(_read_all(target, made, range(first, count), seconds, shared))
        _, status, used = os.wait4(child, 0)
        number, read, slowest = _STATE.unpack_from(shared)
        outcome.read += read
        outcome.slowest = max(outcome.slowest, slowest)
        outcome.most_bytes = max(outcome.most_bytes, used.ru_maxrss * 1024)
        if status == 0 and number == count:
            return outcome
        outcome.failures[number] = _reason(status, shared, seconds)
        first = number + 1
    outcome.count = min(first, count)
    return outcome


def _reason(status: int, shared: mmap.mmap, seconds: float) -> str:
    if status == 0:
        return "the process ended early"
    if os.WIFEXITED(status):
        return shared[_STATE.size :].rstrip(b"\0").decode("utf-8", "replace") or f"the process ended with status {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    return f"took more than {seconds:g} seconds" if number == signal.SIGALRM else f"the process was ended by {signal.Signals(number).name}"


def _read_all(target: Target, made: Callable[[int], bytes], numbers: range, seconds: float, shared: mmap.mmap) -> int:
    """In the child: read one input after the other. Returns the exit status."""
    reading, read, slowest = False, 0, 0.0

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if reading and event.startswith(EVENTS) and event not in ALLOWED:
            raise RuntimeError(f"reading an input led to {event} {arguments!r:.200}")

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, also from within a C function
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(refuse)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in numbers:
            _STATE.pack_into(shared, 0, number, read, slowest)
            data = made(number)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            begin, reading = time.perf_counter(), True
            try:
                read += _is_read(target, data, folder)
            except BaseException:
                reading = False
                told = traceback.format_exc().encode("utf-8", "replace")[-4000:]
                shared[_STATE.size : _STATE.size + len(told)] = told
                return 1
            reading = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            slowest = max(slowest, time.perf_counter() - begin)
        _STATE.pack_into(shared, 0, numbers.stop, read, slowest)
    return 0


def _is_read(target: Target, data: bytes, folder: Path) -> bool:
    """False if the input is refused. Everything else that is raised is a defect, running out of memory included."""
    try:
        target(data, folder)
    except ResourceError:
        raise
    except QwenAudioError as error:
        if not str(error).isprintable():
            raise AssertionError(f"an error of several lines: {error!r}") from error
        return False
    return True
