"""Which clips the evaluation takes, and in which rows of its table they count."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demo import evaluate, pack
from demo.evaluate import Score, evenly, rows, score_second_turn, table


@pytest.mark.parametrize(
    ("count", "limit", "taken"), [(5, None, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 3, 6]), (7, 3, [0, 2, 4])]
)
def test_a_limit_takes_clips_from_the_whole_list(count: int, limit: int | None, taken: list[int]) -> None:
    assert evenly(list(range(count)), limit) == taken  # type: ignore[arg-type]


def test_no_part_of_a_list_is_left_out_by_a_limit() -> None:
    """575 clips, of which the last 50 are of their own kind: as large a share of 60."""
    taken = evenly([{"part": "numbers" if k >= 525 else "others"} for k in range(575)], 60)
    assert len(taken) == 60 and sum(entry["part"] == "numbers" for entry in taken) == 5


def entry(kind: str, text: str, part: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "text": text, "part": part}


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("seven", "words: all people"),
        ("b three", "words: all people"),
        ("two hundred and six", "words: all people"),
        ("seventh", "words: people, telephone words"),
        ("press star six", "words: people, telephone words"),
        ("conference", "words: people, other words"),
        ("seven conferences", "words: people, other words"),
    ],
)
def test_what_strings_teach_is_told_by_the_words(text: str, total: str) -> None:
    alone = ["words: all people, a word alone"] if text == "seven" else []
    assert rows(entry("words", text, "digits"), "asterisk_words") == ["words: asterisk_words, digits", total, *alone]


def test_sentences_and_synthetic_strings_are_all_taught() -> None:
    assert rows(entry("read", "a conference"), "librivox")[1] == "read: all people"
    assert rows(entry("words", "seven"), "ked-words")[1] == "words: all synthetic voices"
    assert rows(entry("note", "flute", "unseen_pitch"), "notes_test") == ["note: notes_test, unseen_pitch", "note: all"]


class Chat:
    """A model that says what it is told to say in the second turn."""

    def __init__(self, answer: str) -> None:
        self.answer, self.asked = answer, 0

    def chat(self) -> Chat:
        return self

    def ask(self, text: str, audio: object = None) -> Any:
        self.asked += 1
        return SimpleNamespace(text='The person says: "one two".' if self.asked == 1 else self.answer)


@pytest.mark.parametrize(
    ("word", "start", "end", "right"),
    [("two", "0.60", "1.00", (1, 1)), ("two", "0.60", "1.24", (1, 0)), ("two", "0.20", "0.90", (1, 0)), ("one", "0.60", "0.90", (0, 0))],
)
def test_a_second_turn_is_right_where_both_times_are_near(word: str, start: str, end: str, right: tuple[int, int]) -> None:
    answer = f'The word "{word}" starts at <|{start}|> seconds and ends at <|{end}|> seconds.'
    score = score_second_turn(Chat(answer), "clip.flac", ("two", 0.5, 1.0))
    assert (score.right["word"], score.right["times"]) == right and len(score.shifts) == 2 * right[0]
    assert not score_second_turn(Chat("nonsense"), "clip.flac", ("two", 0.5, 1.0)).right["word"]


def test_the_table_sums_words_and_means_shifts() -> None:
    score = Score(clips=1, words=4, errors=1, shifts=[0.1])
    score.add(Score(clips=1, words=6, errors=1, shifts=[0.3]))
    assert table({"row": score}).splitlines()[-1] == "| row | 2 | 10 | 20.0 % | 200 ms |  |"


@pytest.mark.parametrize(("given", "told"), [([], "no clips for a test"), (["--sources", "ked-words"], "nothing of ked-words")])
def test_no_clips_are_no_empty_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], told: str) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate", "--data", str(tmp_path), "model", *given])
    with pytest.raises(SystemExit, match=told):
        evaluate.main()


def test_nothing_to_pack_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["pack", "--data", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=r"run python -m demo.speech first"):
        pack.main()
    assert not (tmp_path / "nowhere").exists()
