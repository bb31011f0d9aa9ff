"""What a listener who cannot spell takes down."""

from __future__ import annotations

import math
import string

import numpy as np
import pytest

from demo.mishearing import ALIKE, ALTERNATIVES, LONGEST, misheard


def test_every_letter_but_one_may_be_taken_for_another() -> None:
    assert set(string.ascii_lowercase) - set(ALTERNATIVES) == {"x"}
    assert all(spelling not in others for spelling, others in ALTERNATIVES.items())
    assert max(len(spelling) for spelling in ALIKE.split()) == LONGEST


def test_a_rate_of_nothing_changes_nothing() -> None:
    assert misheard("subjects", 0.0, np.random.default_rng(0)) == "subjects"


def test_about_so_many_letters_are_changed() -> None:
    """Of ten thousand letters "h", which may only fall silent, so many do; a tenth as often the word is torn apart."""
    heard = misheard("h" * 10000, 0.06, np.random.default_rng(0))
    assert 10000 - heard.count("h") == pytest.approx(600, abs=4 * math.sqrt(600))
    assert heard.count(" ") == pytest.approx(60, abs=4 * math.sqrt(60))


def test_a_word_does_not_fall_silent() -> None:
    assert misheard("hhh", 1.0, np.random.default_rng(0)) == "hhh"
