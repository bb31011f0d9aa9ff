"""Where the tokens of an answer are heard, by hand: vectors are 0.04 s long, one more on each side counts."""

from __future__ import annotations

import pytest

from demo.examples import task_example, timestamps_answer, transcript_answer, when_answer
from demo.listening import heard_at
from tests.byte_tokenizer import BYTES

SAID = [("six", 0.2, 0.4), ("one", 0.6, 0.84)]
SIX, ONE, NOWHERE = [4, 10], [14, 21], [-1, -1]


def heard(answer: str, words: list[tuple[str, float, float]] | None = SAID, vectors: int = 50) -> list[list[int]]:
    return heard_at(BYTES.encode(answer, allowed_special="all"), words, vectors, BYTES).tolist()


def test_a_transcript_is_heard_word_by_word() -> None:
    assert heard("six one") == [SIX] * 3 + [NOWHERE] + [ONE] * 3


def test_a_time_on_the_grid_is_no_vector_further() -> None:
    """0.28 s / 0.04 s is a little more than 7 in float64, and 14 times 0.04 s a little more than 0.56 s."""
    assert heard("six", [("six", 7 * 0.04, 14 * 0.04)]) == [[6, 14]] * 3


def test_the_words_around_a_transcript_are_heard_nowhere() -> None:
    before = len('The person says: "')
    assert heard(transcript_answer("six one")) == [NOWHERE] * before + [SIX] * 3 + [NOWHERE] + [ONE] * 3 + [NOWHERE] * 2


@pytest.mark.parametrize("word", ["a", "s", "person", "the"])
def test_a_word_that_is_also_in_the_chats_own_words_is_heard_in_its_quotation_marks(word: str) -> None:
    before = len('The person says: "')
    expected = [NOWHERE] * before + [SIX] * len(word) + [NOWHERE] * 2
    assert heard(transcript_answer(word), [(word, 0.2, 0.4)]) == expected
    expected = [NOWHERE] * len('The word "') + [SIX] * len(word + '" starts at ')
    assert heard(when_answer(word, 1.2, 1.4), [(word, 0.2, 0.4)])[: len(expected)] == expected


def test_times_are_heard_where_they_are() -> None:
    answer = timestamps_answer(SAID)
    assert answer == "<|sil|><|0.20|>six<|0.40|><|sil|><|0.60|>one<|0.84|>"
    assert heard(answer) == [NOWHERE, [3, 6], *[SIX] * 3, [8, 11], NOWHERE, [13, 16], *[ONE] * 3, [19, 22]]


def test_a_word_asked_for_is_heard_until_its_end_is_said() -> None:
    """Its start, too, is sought by the word."""
    spans = [span for span in heard(when_answer("one", 0.6, 0.84)) if span != NOWHERE]
    assert spans == [*[ONE] * len('one" starts at '), ONE, *[ONE] * len(" seconds and ends at "), [19, 22]]


@pytest.mark.parametrize("words", [None, SAID, [("seven", 0.2, 0.4), ("seven", 0.6, 0.8)]])
def test_of_a_word_that_was_not_said_or_twice_only_the_times_are_heard(words: list[tuple[str, float, float]] | None) -> None:
    assert [span for span in heard(when_answer("seven", 0.6, 0.84), words) if span != NOWHERE] == [[13, 16], [19, 22]]


@pytest.mark.parametrize("words", [None, [], [("seven", 0.0, 0.4)]])
def test_without_the_words_of_the_answer_nothing_is_heard(words: list[tuple[str, float, float]] | None) -> None:
    assert heard("six one", words) == [NOWHERE] * 7


def test_nothing_is_heard_outside_the_clip() -> None:
    assert heard("six one", vectors=15) == [SIX] * 3 + [NOWHERE] + [[14, 14]] * 3
    assert heard("six", [("six", 0.0, 0.1)]) == [[0, 3]] * 3


def test_every_token_of_an_example_has_a_place() -> None:
    example = task_example("asr", "six one", 50, BYTES)
    assert heard_at(example.ids[example.answer :], SAID, 50, BYTES).shape == (8, 2)
