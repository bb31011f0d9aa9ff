"""The command line as a process: nothing but the answer on stdout; streams closed or full, encodings, terminals, help."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path

import pytest

from tests.cli_tools import CLIP, LONG, Outcome, Run, assert_refused, environment, process, request, runner, shell


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def test_a_process_says_nothing_but_the_answer(run: Run) -> None:
    assert process(request("-i", str(CLIP), "-p", "hello")) == run(*request("-i", CLIP, "-p", "hello"))


def test_help_needs_no_numpy_and_no_model() -> None:
    code = "import atexit, sys\natexit.register(lambda: print(sorted({'numpy', 'numba', 'soundfile'} & set(sys.modules)), file=sys.stderr))"
    outcome = process(["--help"], code)
    assert (outcome.status, outcome.err) == (0, "[]\n") and "random-checkpoint" in outcome.out


def test_no_words_show_the_short_usage(run: Run) -> None:
    outcome = run()
    assert (outcome.status, outcome.out) == (2, "") and outcome.err.startswith("usage: qwenaudio-np ") and outcome.err.count("\n") < 5


def test_a_reader_that_leaves_is_no_error() -> None:
    words = request("-p", "hello", tokens=LONG)
    assert shell('set -o pipefail; "$@" | head -c 10', *words) == Outcome(0, process(request("-p", "hello", tokens=20)).out[:10], "")
    assert shell('set -o pipefail; "$@" | true', "--help").status == 0


@pytest.mark.parametrize("words", [request("-p", "x"), ["--version"]], ids=["run", "version"])
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_a_closed_or_full_stdout_is_an_error(words: list[str], where: str) -> None:
    if where == ">/dev/full" and not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full here")
    outcome = shell(f'"$@" {where}', *words)
    assert_refused(outcome, 1, "standard output")


def test_stdin_and_stderr_may_be_closed() -> None:
    words = request("-i", str(CLIP), "-p", "hello")
    assert shell('"$@" <&- 2>&-', *words) == process(words)
    assert shell('"$@" 2>&-', *request("-i", "nowhere", "-p", "x")).status == 1
    assert_refused(shell('"$@" <&-', *request("-i", "-", "-p", "x")), 1, "standard input", "closed")


def test_a_plain_c_locale_changes_nothing(tmp_path: Path) -> None:
    clip = tmp_path / "ü😀.wav"
    clip.write_bytes(CLIP.read_bytes())
    words = request("-i", str(clip), "-p", "naïve café 你好", "--json", tokens=12)
    ascii_only = environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    here, there = json.loads(process(words, env=environment(PYTHONUTF8="1")).out), json.loads(process(words, env=ascii_only).out)
    assert [here[key] for key in ("text", "prompt_ids")] == [there[key] for key in ("text", "prompt_ids")]
    assert os.fsencode(here["audio"][0]["path"]) == there["audio"][0]["path"].encode("utf-8", "surrogateescape") == os.fsencode(clip)


def test_json_stays_json_in_any_encoding(tmp_path: Path) -> None:
    clip = tmp_path / "ü😀.wav"
    clip.write_bytes(CLIP.read_bytes())
    outcome = process(request("-i", str(clip), "-p", "x", "--json"), env=environment(PYTHONIOENCODING="latin-1", PYTHONUTF8="1"))
    assert json.loads(outcome.out)["audio"][0]["path"] == str(clip) and outcome.out.isascii()


def test_progress_shows_on_a_terminal_only() -> None:
    ours, theirs = pty.openpty()
    words = request("-i", str(CLIP), "-p", "hello")
    outcome = process(words, stderr=theirs)
    told = os.read(ours, 1 << 16).decode()
    assert outcome.status == 0 and len(outcome.out) > 1
    assert "opening" in told and "encoding" in told and "tokens/s" in told
    assert process([*words, "--quiet"], stderr=theirs).status == 0
    os.close(theirs)
    with pytest.raises(OSError):  # the other end is gone, and nothing was left in it
        os.read(ours, 1)
    os.close(ours)


def test_verbose_shows_progress_without_a_terminal(run: Run) -> None:
    assert "prompt of" in run(*request("-p", "x", "--verbose")).err


@pytest.mark.parametrize("words", [("-p", "x", "--task", "asr"), ("--task", "asr", "--format", "chat"), ("-p", "x", "--style", "plain")])
def test_words_that_no_model_takes_together_are_refused_before_one_is_opened(run: Run, words: tuple[str, ...]) -> None:
    refused = run(*request(*words, "--verbose"))
    assert refused.status == 2 and refused.err.count("\n") == 1
