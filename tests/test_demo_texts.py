"""The text and the assembly of the training speech: what is said is what the label says, and when."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the demo's scripts read and write sound files with soundfile")
pytest.importorskip("soxr", reason="the demo's scripts resample with soxr")

from demo import assemble, number_words, texts, word_strings
from demo.voices import RATE, Speech

NUMBERS = {
    0: "zero", 7: "seven", 13: "thirteen", 20: "twenty", 42: "forty two", 100: "one hundred", 305: "three hundred and five",
    999: "nine hundred and ninety nine", 1000: "one thousand", 1001: "one thousand and one", 1100: "one thousand one hundred",
    20_050: "twenty thousand and fifty", 123_456: "one hundred and twenty three thousand four hundred and fifty six",
    2_000_003: "two million and three",
}  # fmt: skip
YEARS = {
    1984: "nineteen eighty four", 1905: "nineteen oh five", 1900: "nineteen hundred", 2000: "two thousand", 2006: "two thousand and six",
    2024: "twenty twenty four", 1066: "ten sixty six",
}  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
def test_cardinal(number: int) -> None:
    assert number_words.cardinal(number) == NUMBERS[number]


def test_cardinal_without_and() -> None:
    assert number_words.cardinal(305, with_and=False) == "three hundred five"


@pytest.mark.parametrize("number", [-1, number_words.LARGEST + 1])
def test_cardinal_refuses_what_it_cannot_say(number: int) -> None:
    with pytest.raises(ValueError, match=str(number)):
        number_words.cardinal(number)


@pytest.mark.parametrize(
    ("number", "place"),
    [(1, "first"), (12, "twelfth"), (20, "twentieth"), (40, "fortieth"), (85, "eighty fifth"), (100, "one hundredth")],
)
def test_ordinal(number: int, place: str) -> None:
    assert number_words.ordinal(number) == place


@pytest.mark.parametrize("number", YEARS)
def test_year(number: int) -> None:
    assert number_words.year(number) == YEARS[number]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Mr. Knightley's drawing-room -- _very_ large!", "mister knightley's drawing room very large"),
        ("He said, 'I don't know 12 of them' in 1812.", "he said i don't know twelve of them in eighteen twelve"),
        ("“Mrs. Bennet,” said\nhe (softly).", "missus bennet said he softly"),
        ("Mr\nElliot and Mrs Croft of St James's, Mr. Shepherd", "mister elliot and missus croft of saint james's mister shepherd"),
        ("A sum of $30 was paid.", None),
        ("It is the NASA way.", None),
        ("see x = y + 1 there", None),
        ("At 10:30 he came.", None),
        ("naïve men came here", None),
    ],
)
def test_label_of_written_out_text(text: str, label: str | None) -> None:
    assert texts.label_of(texts.write_out(text)) == label


def test_pieces_hold_the_words_they_are_labelled_with_and_are_no_longer_than_allowed() -> None:
    paragraph = " ".join(f"It was day {number_words.cardinal(count)}. Nobody came to us." for count in range(100)) + " We saw ships," * 30
    found = texts.pieces(paragraph)
    assert " ".join(label for label, _ in found) == texts.label_of(paragraph)
    assert all(texts.SHORTEST <= len(label.split()) <= texts.LONGEST for label, _ in found)
    assert all(texts.label_of(spoken) == label for label, spoken in found)
    assert len({len(label.split()) for label, _ in found}) > 3  # joined to different lengths


def test_pieces_skip_what_cannot_be_read_and_do_not_join_across_it() -> None:
    found = texts.pieces("We went to the sea. The cost was $12 a head. They came back to us.")
    assert [label for label, _ in found] == ["we went to the sea", "they came back to us"]


def test_a_part_of_signs_alone_adds_nothing() -> None:
    assert [label for label, _ in texts.pieces("? A thing called ethics.")] == ["a thing called ethics"]


def test_serialised_strings() -> None:
    header = b"\x00\x04\x00\x09"
    data = b"X\nsomething" + header + b"\x00\x00\x00\x02ab" + header + b"\x00\x00\x00\x00" + header + b"\x00\x00\x00\x03c d" + b"\x00"
    assert texts._serialised_strings(data) == ["ab", "", "c d"]


def test_example_sentences_of_wordnet(tmp_path: Path) -> None:
    """Each once, without the glosses; "patch it" is shorter than a piece may be."""
    for part in ("adj", "adv", "noun", "verb"):
        (tmp_path / f"data.{part}").write_text("  1 This software and database is being provided\n")
    (tmp_path / "data.verb").write_text(
        '00011 | move the air; "breathe in the fresh air"; "She breathes 2 times"; "patch it"\n00012 | live; "breathe in the fresh air"\n'
    )
    pairs = {("breathe in the fresh air", "breathe in the fresh air"), ("she breathes two times", "She breathes two times")}
    assert set(texts.example_pieces(tmp_path)) == pairs


def plain_strings(make: Callable[[np.random.Generator], list[str]], longest: int) -> list[list[str]]:
    """Many strings, all of plain words and none too long."""
    rng = np.random.default_rng(0)
    strings = [make(rng) for _ in range(3000)]
    assert all(1 <= len(string) <= longest for string in strings)
    assert all(word.isalpha() and word.islower() for string in strings for word in string)
    return strings


def test_all_kinds_of_word_strings_come_up() -> None:
    words = {word for string in plain_strings(word_strings.word_string, 14) for word in string}
    assert words >= {*word_strings.DIGITS, *word_strings.LETTERS, *word_strings.COMMANDS, "oh", "hundred", "thousand", "point", "dollars"}


def test_telephone_strings_hold_letters_dates_spelling_and_repeated_words() -> None:
    strings = plain_strings(word_strings.telephone_string, 20)
    words = {word for string in strings for word in string}
    expected = (word_strings.LETTERS, word_strings.SPELLING, word_strings.MONTHS, word_strings.DAYS, word_strings.SIGNS, word_strings.KEYS)
    assert words >= {"first", "twentieth", "thirty", *(word for kind in expected for word in kind)}
    commands = set(word_strings.COMMANDS)
    assert any(first == second and first in commands for string in strings for first, second in itertools.pairwise(string))


def test_no_word_of_the_strings_is_left_out_for_sounding_like_another() -> None:
    assert {"two", "four", "eight", "b", "c", "no", "right", "close"} <= word_strings.STRING_WORDS
    assert all(re.fullmatch("[a-z]+", word) for word in word_strings.STRING_WORDS)
    assert not (word_strings.SOUND_LIKE_STRING_WORDS & {*word_strings.DIGITS, *word_strings.LETTERS, *word_strings.COMMANDS})


def test_spoken_strings_name_letters() -> None:
    spoken = [word_strings.spoken_string(["b", "a", "seven"], np.random.default_rng(seed)) for seed in range(30)]
    assert set(spoken) >= {"B eigh seven.", "B, eigh, seven."}
    assert word_strings.spoken_string(["set", "a", "timer"], np.random.default_rng(0)) == "Set a timer."


def tone(seconds: float) -> np.ndarray:
    return np.sin(np.arange(round(seconds * RATE)) * 0.3).astype(np.float32)


def test_trimmed_keeps_the_sound_and_moves_the_times() -> None:
    samples = np.concatenate([np.zeros(RATE // 4, np.float32), tone(0.5), np.zeros(RATE // 2, np.float32)])
    speech = assemble.trimmed(Speech(samples, "x", [("a", 0.20, 0.5), ("b", 0.5, 0.9)]))
    assert abs(len(speech.samples) - RATE // 2) <= 2 * assemble.FRAME
    assert speech.words is not None
    np.testing.assert_allclose([time for _, *times in speech.words for time in times], [0.0, 0.25, 0.25, 0.5], atol=1e-9)


def test_trimmed_refuses_silence() -> None:
    with pytest.raises(ValueError, match="silent"):
        assemble.trimmed(Speech(np.zeros(RATE, np.float32), "x"))


def test_assembled_words_sound_exactly_in_their_times() -> None:
    lengths, gaps = [0.2, 0.31, 0.1], [0.05, 0.4]
    samples, words = assemble.assembled([(name, tone(length)) for name, length in zip("abc", lengths, strict=True)], gaps)
    speech = assemble.padded(Speech(samples, "x", words), 0.3, 0.7)
    assert speech.words is not None and [word for word, _, _ in speech.words] == ["a", "b", "c"]
    sounding = np.zeros(len(speech.samples), bool)
    for (_, start, end), length in zip(speech.words, lengths, strict=True):
        assert end - start == pytest.approx(length, abs=1 / RATE)
        sounding[round(start * RATE) : round(end * RATE)] = True
    assert not speech.samples[~sounding].any()
    assert np.abs(speech.samples[sounding]).mean() > 0.3
    assert len(speech.samples) / RATE == pytest.approx(sum(lengths) + sum(gaps) + 1.0, abs=4 / RATE)


def test_warped_speech_is_shorter_by_its_factor() -> None:
    speech = assemble.warped(Speech(tone(1.0), "x", [("a", 0.25, 0.75)]), 1.1)
    assert len(speech.samples) / RATE == pytest.approx(1 / 1.1, abs=1e-3)
    assert speech.words is not None
    np.testing.assert_allclose(speech.words[0][1:], [0.25 / 1.1, 0.75 / 1.1])
    spectrum = np.abs(np.fft.rfft(speech.samples * np.hanning(len(speech.samples))))
    assert 2 * np.pi * spectrum.argmax() / len(speech.samples) == pytest.approx(0.3 * 1.1, rel=0.01)


def test_padded_speech_has_the_set_peak() -> None:
    assert np.abs(assemble.padded(Speech(3 * tone(0.3), "x"), 0.1, 0.1).samples).max() == pytest.approx(assemble.PEAK)
