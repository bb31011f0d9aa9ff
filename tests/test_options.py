"""Words -> options: spelling, defaults, types, and help pages that can be read."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentTypeError
from collections.abc import Collection

import pytest

from qwenaudio_np.backends import BACKENDS
from qwenaudio_np.cache import KEPT
from qwenaudio_np.convert import random_checkpoint
from qwenaudio_np.convert.random_checkpoint import SIZES
from qwenaudio_np.convert.weight_source import KINDS
from qwenaudio_np.convert.weight_types import WEIGHT_TYPES
from qwenaudio_np.errors import UsageError
from qwenaudio_np.loading import DTYPES
from qwenaudio_np.options import whole_number
from qwenaudio_np.parser import SHORT_USAGE, VERBS, parse, with_hyphens
from qwenaudio_np.tasks import TASKS
from qwenaudio_np.weight_plan import WEIGHTS


def test_defaults() -> None:
    options = vars(parse(["-p", "x"]))
    assert options["verb"] == "run" and options["prompt"] == "x" and options["input"] == []
    assert (options["backend"], options["temperature"], options["max_new_tokens"]) == ("numba", 0.0, None)
    assert not any(options[name] for name in ("json", "force", "verbose", "quiet", "output", "history", "model", "threads", "seed"))


def test_inputs_may_come_at_once_or_one_by_one() -> None:
    assert parse(["-i", "a", "b", "-p", "x", "--input", "c", "--input=-d", "-ie"]).input == ["a", "b", "c", "-d", "e"]


def test_values_are_left_alone() -> None:
    for value in ("a_b", "--a_b c", "-5", "- a list", "naïve"):
        assert parse([f"--prompt={value}"]).prompt == value
    assert parse(["-p", "- a list"]).prompt == "- a list"
    assert parse(["info", "--", "--my_folder"]).model == "--my_folder"


@pytest.mark.parametrize(
    ("words", "fixed"),
    [
        (["--max_new_tokens", "5"], ["--max-new-tokens", "5"]),
        (["--text_language=zh_tr"], ["--text-language=zh_tr"]),
        (["-p", "--a_b c"], ["-p", "--a_b c"]),
        (["a_b", "-x_y", "--", "--c_d"], ["a_b", "-x_y", "--", "--c_d"]),
    ],
)
def test_underscores(words: list[str], fixed: list[str]) -> None:
    assert with_hyphens(words) == fixed


def test_verbs_with_underscore_or_hyphen() -> None:
    assert [parse([verb, "x"]).verb for verb in ("random_checkpoint", "random-checkpoint", "info")] == ["random-checkpoint"] * 2 + ["info"]
    assert parse(["run", "-p", "x"]) == parse(["-p", "x"])


@pytest.mark.parametrize("words", ["sing", "--nope", "info", "-p", "-i", "trace -p x", "info a b", "-p x --tem 1"])
def test_what_is_not_understood_is_one_sentence(words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words.split())
    assert "\n" not in str(caught.value) and "--help" in str(caught.value)


@pytest.mark.parametrize(("low", "text", "value"), [(0, "0", 0), (1, "17", 17), (0, "+3", 3)])
def test_whole_numbers(low: int, text: str, value: int) -> None:
    assert whole_number(low)(text) == value


@pytest.mark.parametrize(("low", "text"), [(0, "-1"), (1, "0"), (0, "2.5"), (0, "x"), (0, ""), (0, "9" * 5000)])
def test_other_numbers(low: int, text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"at least {low}"):
        whole_number(low)(text)


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        parse(words)
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_page(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    page = help_of([verb, "--help"], capsys)
    assert page.startswith(f"usage: qwenaudio-np {'[run]' if verb == 'run' else verb} ") and "examples:\n" in page
    options = [line for line in page.splitlines() if line.startswith("  -")]
    lines = page.split("\ntasks (")[0].split("examples:")[0].splitlines()
    assert len(options) >= 3 and len(lines) < len(options) + 25  # an option takes one line, seldom two


def test_every_task_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    page = help_of(["run", "--help"], capsys)
    assert all(f"\n  {name:<12}{task.summary}\n" in page for name, task in TASKS.items())


def test_the_examples_are_commands_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    page = help_of(["--help"], capsys)
    commands = [line.split("qwenaudio-np ", 1)[1] for line in page.split("examples:\n")[1].splitlines()]
    assert {parse(shlex.split(command)).verb for command in commands} == set(VERBS)
    assert all(verb in page for verb in VERBS) and "usage:" in SHORT_USAGE
    assert help_of(["--version"], capsys).startswith("qwenaudio-np ")


@pytest.mark.parametrize(
    ("words", "name", "table"),
    [
        (["-p", "x"], "weights", WEIGHTS),
        (["-p", "x"], "kv", KEPT),
        (["-p", "x"], "backend", BACKENDS),
        (["trace", "-p", "x", "-o", "x"], "dtype", DTYPES),
        (["convert", "a", "b"], "weights", WEIGHT_TYPES),
        (["convert", "a", "b"], "from", KINDS),
        (["random-checkpoint", "a"], "size", SIZES),
        (["random-checkpoint", "a"], "dtype", random_checkpoint.DTYPES),
    ],
)
def test_choices_are_those_of_the_tables(words: list[str], name: str, table: Collection[str]) -> None:
    """options.py types them out, to import nothing heavy."""
    for value in table:
        assert vars(parse([*words, f"--{name}", value]))[name.replace("from", "from_")] == value
    with pytest.raises(UsageError) as caught:
        parse([*words, f"--{name}", "nothing"])
    assert set(re.findall(r"'([\w.]+)'", str(caught.value))) - {"nothing"} == set(table)
