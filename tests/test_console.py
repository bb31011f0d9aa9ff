"""Standard streams that are closed, full, narrow or terminals; what a stranger's text can do to one line; Ctrl-C on the spot."""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from qwenaudio_np import console
from qwenaudio_np.errors import QwenAudioError
from qwenaudio_np.prompt import PromptWarning
from tests.cli_tools import environment


class Stream(io.StringIO):
    """A standard stream that may be a terminal, and may fail."""

    def __init__(self, terminal: bool = False, failure: OSError | None = None) -> None:
        super().__init__()
        self.terminal, self.failure, self.flushes = terminal, failure, 0

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        self.flushes += 1
        if self.failure:
            raise self.failure


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors that were given up; none is, in the process of the tests."""
    given_up: list[int] = []
    monkeypatch.setattr(console, "drop_unwritten", given_up.append)
    return given_up


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve, 你好 😀", "plain, naïve, 你好 😀"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31m\x07\x9b", "\\x1b[31m\\x07\\x9b"),
        ("\udcff\u202e\u2028", "\\udcff\\u202e\\u2028"),
        ("", ""),
        ("你\u3000好\u00a0! \U0001f468\u200d\U0001f469", "你\u3000好\u00a0! \U0001f468\u200d\U0001f469"),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert console.one_line(text) == shown and "\n" not in shown


def test_json_steers_no_terminal() -> None:
    text = "a\x7f\x9b31m\u202e\u2028\u4f60\u597d\U0001f600 \x1b"
    line = console.plain_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(console.plain_json('"\U000e0001"')) == "\U000e0001" and console.plain_json('"\U000e0001"').isascii()
    assert line == '"a\\u007f\\u009b31m\\u202e\\u2028\u4f60\u597d\U0001f600 \\u001b"' and json.loads(line) == text


def test_put_arrives_or_says_why(monkeypatch: pytest.MonkeyPatch, dropped: list[int]) -> None:
    good = Stream()
    monkeypatch.setattr(sys, "stdout", good)
    console.put("a\n")
    assert good.getvalue() == "a\n" and good.flushes == 1 and dropped == []
    monkeypatch.setattr(sys, "stdout", Stream(failure=FULL))
    with pytest.raises(QwenAudioError, match="standard output: no space left"):
        console.put("a")
    assert dropped == [1]
    monkeypatch.setattr(sys, "stdout", Stream(failure=BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        console.put("a")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(QwenAudioError, match="closed"):
        console.put("")


def test_say_never_fails(monkeypatch: pytest.MonkeyPatch, dropped: list[int]) -> None:
    good = Stream()
    monkeypatch.setattr(sys, "stderr", good)
    console.say("a")
    assert good.getvalue() == "a\n" and dropped == []
    monkeypatch.setattr(sys, "stderr", Stream(failure=FULL))
    console.say("a")
    assert dropped == [2]
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", good)
    console.say("b")  # print(file=None) would go to stdout
    assert good.getvalue() == "a\n"


def answer(pieces: list[str], stream: Stream, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    printer = console.Answer()
    for piece in pieces:
        printer.write(piece)
    printer.close()
    return stream.getvalue()


@pytest.mark.parametrize(
    "pieces",
    [[], [""], [" ", "\n"], ["  a", "b  ", " ", "c\n", "\n"], ["a", " ", "", "b "], ["\n a\n\n", "b"], ["\u3000a\u3000", "b\u3000"]],
)
def test_an_answer_is_the_stripped_text(pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(pieces, Stream(), monkeypatch) == "".join(pieces).strip() + "\n"


def test_an_answer_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    printer, seen = console.Answer(), []
    for piece in [" one", " ", "two", " \n"]:
        printer.write(piece)
        seen.append((stream.getvalue(), stream.flushes))
    assert seen == [("one", 1), ("one", 1), ("one two", 2), ("one two", 2)]


def test_a_reader_who_has_left_hides_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer.write says so as ever; but where the answer is broken off by an error, that is what is told."""
    dropped: list[int] = []
    monkeypatch.setattr(console, "drop_unwritten", dropped.append)
    monkeypatch.setattr(sys, "stdout", Stream())
    printer = console.Answer()
    printer.write("one")

    def left(text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(console, "put", left)
    printer.break_off()
    assert dropped == [1]
    with pytest.raises(BrokenPipeError):
        printer.write(" two")


def test_control_characters_are_written_out_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = ["a\x1b[2J", "\nb\x07"]
    assert answer(pieces, Stream(), monkeypatch) == "a\x1b[2J\nb\x07\n"
    assert answer(pieces, Stream(terminal=True), monkeypatch) == "a\\x1b[2J\nb\\x07\n"


@pytest.mark.parametrize(
    ("terminal", "verbose", "quiet", "shown"),
    [(True, False, False, True), (False, False, False, False), (False, True, False, True), (True, False, True, False)],
)
def test_progress(terminal: bool, verbose: bool, quiet: bool, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    console.Progress(verbose, quiet)("working")
    assert stream.getvalue() == ("working\n" if shown else "")


def test_warnings_become_lines_once_and_libraries_stay_silent(capsys: pytest.CaptureFixture[str]) -> None:
    before = warnings.showwarning
    with console.warnings_as_lines():
        for message in ("one\nline", "one\nline", "two"):
            warnings.warn(message, PromptWarning, stacklevel=1)
        warnings.warn("of a library", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: one\\nline\nwarning: two\n"
    assert warnings.showwarning is before


@pytest.mark.parametrize(
    ("encoding", "used", "printed"), [("ascii", "utf-8", "é 😀"), ("utf-8", "utf-8", "é 😀"), ("latin-1", "latin-1", "é \\U0001f600")]
)
def test_stdout_takes_any_character(encoding: str, used: str, printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    console.prepare_streams()
    console.put("é 😀")
    assert (sys.stdout.encoding, raw.getvalue().decode(used)) == (used, printed)
    assert console.writes_unicode() == (used == "utf-8")


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_closed_descriptors_are_filled(closed: str, tmp_path: Path) -> None:
    """The next file to be opened must not become a standard stream. What is written to a closed one goes nowhere."""
    code = "import os, sys; from qwenaudio_np import console; console.prepare_streams(); os.write(2, b'x')\n"
    code += f"with open({str(tmp_path / 'opened')!r}, 'w') as file: file.write(str(file.fileno()))"
    closing = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(["bash", "-c", f'"$@" {closing}', "bash", sys.executable, "-c", code], env=environment(), check=True, timeout=60)
    assert done.returncode == 0 and int((tmp_path / "opened").read_text()) > 2


def test_leaving_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    with console.leaving_at_once():
        signal.raise_signal(signal.SIGINT)
        assert left == [130]
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_leaving_at_once_respects_a_signal_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nohup`, and shells that start things in the background, ignore Ctrl-C on purpose."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with console.leaving_at_once():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_c_code_swallows_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    @ctypes.CFUNCTYPE(None)
    def callback() -> None:
        signal.raise_signal(signal.SIGINT)

    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), console.lost_interrupts_come_again():
        callback()
        for _ in range(600):
            time.sleep(0.1)  # one long sleep would not be interrupted: no real signal comes
    assert capsys.readouterr().err == "" and sys.unraisablehook is hook


def test_what_else_is_swallowed_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: lost.append(told.exc_type))
    with console.lost_interrupts_come_again():
        ctypes.CFUNCTYPE(None)(lambda: {}[0])()
    assert lost == [KeyError]


def test_a_progress_bar_writes_where_that_is_possible(monkeypatch: pytest.MonkeyPatch, dropped: list[int]) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    console.Careless().write("x")

    monkeypatch.setattr(sys, "stderr", Stream(failure=FULL))
    console.Careless().write("x")
    assert dropped == [2]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    console.Careless().write("x")
    assert sys.stderr.getvalue() == "x"  # type: ignore[attr-defined]
