"""How text leaves the program: answers on stdout as they come, everything else on stderr, and what Ctrl-C does before there is text."""

from __future__ import annotations

import _thread
import codecs
import os
import signal
import sys
import threading
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from types import FrameType

from qwenaudio_np.errors import QwenAudioError

INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT, as shells count
AGAIN = 0.05  # seconds until a Ctrl-C that was lost comes again


def prepare_streams() -> None:
    """Make the three standard streams safe to use, whatever the caller did to them.

    A descriptor that the caller closed would be given to the next file that is opened, and with it what C libraries print there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number; sys.stdin, sys.stdout, sys.stderr stay None
    if isinstance(sys.stdout, TextIOWrapper):
        if codecs.lookup(sys.stdout.encoding).name == "ascii":
            sys.stdout.reconfigure(encoding="utf-8")  # LANG=C: an answer in Chinese is still an answer
        sys.stdout.reconfigure(errors="backslashreplace")


def put(text: str) -> None:
    """Write on stdout and make sure that it arrives: a closed or full stdout is an error, not a silent success.

    Raises QwenAudioError, or BrokenPipeError where the reader has left.
    """
    if sys.stdout is None:
        raise QwenAudioError("standard output is closed; send it to a file or give --output FILE")
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_unwritten(1)
        raise QwenAudioError(f"cannot write to standard output: {reason(error)}") from None


def say(line: str) -> None:
    """One line on stderr; nothing, where that is closed or full: there is nobody left to tell."""
    if sys.stderr is None:
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        drop_unwritten(2)


def reason(error: OSError) -> str:
    """What the system says of a failure, in the style of this program's messages."""
    return (error.strerror or str(error)).lower()


def one_line(text: str) -> str:
    """Newlines, escape sequences, halves of characters and whatever else a line cannot show, written out as `\\n`, `\\x1b`, ..."""
    return "".join(c if _can_show(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def plain_json(line: str) -> str:
    """A line of JSON; what `one_line` would write out, and JSON lets pass, as JSON's own escapes: one for each half of a wide character."""
    return "".join(c if _can_show(c) else _json_escape(c) for c in line)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[k : k + 4]}" for k in range(0, len(units), 4))


def _can_show(character: str) -> bool:
    """What Python calls printable, and what texts have besides: spaces of all kinds, and what joins letters or keeps them apart."""
    return character.isprintable() or unicodedata.category(character) == "Zs" or character in "\u200c\u200d"


def drop_unwritten(descriptor: int) -> None:
    """Give up what could not be written, so that the interpreter does not fail a second time when it flushes at exit."""
    with suppress(OSError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, descriptor)
        os.close(devnull)


def writes_unicode() -> bool:
    """Whether stdout takes every character as it is."""
    return sys.stdout is not None and codecs.lookup(sys.stdout.encoding or "ascii").name.startswith("utf")


class Answer:
    """Prints pieces of text on stdout as they come, without the white space before the first and after the last word.

    On a terminal, control characters are written out: a model repeats what it hears, and must not steer the reader's terminal.
    """

    def __init__(self) -> None:
        self._held = ""  # white space that is printed only if something follows it
        self._begun = False
        self._terminal = sys.stdout is not None and sys.stdout.isatty()

    def write(self, piece: str) -> None:
        """Print what is certain by now, at once, so that a pipe's reader sees it too."""
        text = self._held + piece if self._begun else piece.lstrip()
        body = text.rstrip()
        self._held = text[len(body) :]
        if body:
            self._begun = True
            put("\n".join(map(one_line, body.split("\n"))) if self._terminal else body)

    def close(self) -> None:
        """End the line."""
        put("\n")

    def break_off(self) -> None:
        """End the line if one was begun: what comes next is an error, which a reader who has left must not hide."""
        try:
            if self._begun:
                put("\n")
        except BrokenPipeError:
            drop_unwritten(1)


class Progress:
    """Lines about what is being done, on stderr; silent unless that is a terminal (or `verbose`), or if `quiet`."""

    def __init__(self, verbose: bool = False, quiet: bool = False) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.shown = (terminal or verbose) and not quiet

    def __call__(self, line: str) -> None:
        """Print one line."""
        if self.shown:
            say(line)


class Careless:
    """stderr for a progress bar: what cannot be written there, closed or full as it may be, is left out."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        """Write it if that is possible."""
        if sys.stderr is not None:
            try:
                sys.stderr.write(text)
                sys.stderr.flush()
            except (OSError, ValueError):
                drop_unwritten(2)

    def flush(self) -> None:
        """Everything is flushed as it is written."""

    def fileno(self) -> int:
        """By which the terminal's width is found."""
        return 2


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Warnings of this package become one `warning:` line each, once; those of libraries stay away from users."""
    from qwenaudio_np.prompt import PromptWarning
    from qwenaudio_np.sources import AudioWarning
    from qwenaudio_np.threads import ThreadsWarning

    told: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in told:
            told.add(str(message))
            say(f"warning: {one_line(str(message))}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for category in (AudioWarning, PromptWarning, ThreadsWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        yield


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Ctrl-C in this block ends the process on the spot, for blocks that have nothing to lose.

    Imports are such: an exception in the middle of one is turned by C extensions into other errors, or printed and forgotten.
    """
    try:
        normal = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        before = signal.signal(signal.SIGINT, _leave) if normal else None
    except ValueError:  # not the main thread, where Ctrl-C does not arrive
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def lost_interrupts_come_again() -> Iterator[None]:
    """Ctrl-C that is lost in this block is pressed again a little later, unless the block has ended by then.

    Python can only print and forget an exception where C code called it: the compiler of the kernels does that for each kernel.
    """
    before = sys.unraisablehook
    timers: list[threading.Timer] = []

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            return before(lost)
        timers.append(threading.Timer(AGAIN, _thread.interrupt_main))
        timers[-1].daemon = True
        timers[-1].start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()


def _leave(number: int, frame: FrameType | None) -> None:
    say("interrupted")
    os._exit(INTERRUPTED)
