"""The best CTC path against a search through all paths, and the way from emissions to times."""

from __future__ import annotations

from itertools import groupby, product

import numpy as np
import pytest

from demo import sizes
from demo.ctc_alignment import FARTHEST, Lines, Spans, emissions, word_tokens
from qwenaudio_np.tokenizer import Tokenizer

A, B, BLANK = 97, 98, sizes.RANKS
BYTES = Tokenizer({bytes([value]): value for value in range(256)})


def collapse(path: tuple[int, ...]) -> list[int]:
    """What a path of labels spells: repeats merged, then blanks left out."""
    return [label for label, _ in groupby(path) if label != BLANK]


@pytest.mark.parametrize("ids", [[A], [A, B], [A, A], [A, B, A], [B, B, A]])
@pytest.mark.parametrize("seed", range(4))
def test_the_path_is_the_best_of_all(ids: list[int], seed: int) -> None:
    """Every path of 6 frames over three labels is tried."""
    scores = np.full((6, sizes.RANKS + 1), -50.0)
    scores[:, [A, B, BLANK]] = np.random.default_rng(seed).normal(0.0, 2.0, (6, 3))
    paths = [path for path in product((A, B, BLANK), repeat=6) if collapse(path) == ids]
    best = max(paths, key=lambda path: sum(scores[frame, label] for frame, label in enumerate(path)))
    runs = [(label, list(frames)) for label, frames in groupby(range(6), key=lambda frame: best[frame])]
    expected = [[frames[0], frames[-1]] for label, frames in runs if label != BLANK]
    assert emissions(scores, np.array(ids)).tolist() == expected


def test_too_few_frames_give_every_token_its_share() -> None:
    scores = np.zeros((2, sizes.RANKS + 1))
    assert emissions(scores, np.array([A, A, A, A])).tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]


def test_tokens_belong_to_the_word_of_their_last_letter() -> None:
    tokenizer = Tokenizer({bytes([value]): value for value in range(256)} | {b" b": 256, b"c ": 257})
    ids, of_word = word_tokens(tokenizer, "a bd c")
    assert [tokenizer.decode([id_]) for id_ in ids] == ["a", " b", "d", " ", "c"]
    assert of_word[[0, 1, 2, 4]].tolist() == [0, 1, 1, 2]


def test_one_word_of_one_token() -> None:
    ids, of_word = word_tokens(Tokenizer({bytes([value]): value for value in range(256)}), "a")
    assert ids.tolist() == [A] and of_word.tolist() == [0]


def test_times_by_hand() -> None:
    """Lines that say: a word starts one frame before its first emission and ends two frames after its last."""
    lines = Lines(np.array([-1.0, 0, 0, 0]), np.array([2.0, 0, 0, 0]))
    times = lines.times(Spans(np.array([5, 20]), np.array([8, 24])), 25)
    np.testing.assert_allclose(times, [[0.16, 0.40], [0.76, 1.0]])


def test_words_that_would_overlap_meet_in_the_middle() -> None:
    lines = Lines(np.array([-2.0, 0, 0, 0]), np.array([3.0, 0, 0, 0]))
    times = lines.times(Spans(np.array([5, 10]), np.array([8, 12])), 100)
    np.testing.assert_allclose(times, [[0.12, 0.38], [0.38, 0.6]])


def test_the_lines_see_the_neighbours_and_no_pause_longer_than_half_a_second() -> None:
    start, end = Spans(np.array([5, 40]), np.array([8, 40])).inputs(43)
    assert start.tolist() == [[1, 6, 3, 0], [1, FARTHEST, 0, 1]]
    assert end.tolist() == [[1, FARTHEST, 3, 0], [1, 3, 0, 1]]


def test_a_long_transcript_one_frame_for_each_token() -> None:
    ids = np.tile([A, B], 150)
    scores = np.full((300, sizes.RANKS + 1), -5.0)
    scores[np.arange(300), ids] = 0.0
    assert emissions(scores, ids).tolist() == [[frame, frame] for frame in range(300)]
