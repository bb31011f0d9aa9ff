"""Where a known transcript lies in a recording: the best CTC path, and word times told from its emissions. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo import sizes
from demo.examples import GRID
from qwenaudio_np.tokenizer import Tokenizer

FARTHEST = 12  # frames; behind that there is a pause, whose length says no more about the boundary


@dataclass(frozen=True)
class Spans:
    """For each word the frame that emits its first token, and that of its last; frames are GRID seconds long."""

    first: np.ndarray  # [words]
    last: np.ndarray  # [words]

    def inputs(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """What a word's start and its end are told from, [words, 4] each: the nearest emissions on both sides of the boundary.

        Distances are cut at FARTHEST.
        """
        before = np.concatenate([[-1], self.last[:-1]])
        after = np.concatenate([self.first[1:], [frames]])
        ones, length = np.ones(len(self.first)), self.last - self.first
        start = np.stack([ones, np.minimum(self.first - before, FARTHEST), np.minimum(length, FARTHEST), length == 0], 1)
        end = np.stack([ones, np.minimum(after - self.last, FARTHEST), np.minimum(length, FARTHEST), length == 0], 1)
        return start, end


@dataclass
class Lines:
    """Offsets of starts and ends from their emissions, linear in Spans.inputs."""

    start: np.ndarray  # [4]
    end: np.ndarray  # [4]

    def times(self, spans: Spans, frames: int) -> np.ndarray:
        """[words, 2] seconds, in order."""
        start, end = spans.inputs(frames)
        starts = (spans.first + start @ self.start) * GRID
        ends = (spans.last + end @ self.end) * GRID
        middle = (starts[1:] + ends[:-1]) / 2
        overlap = ends[:-1] > starts[1:]
        starts[1:][overlap], ends[:-1][overlap] = middle[overlap], middle[overlap]
        return np.clip(np.stack([starts, ends], 1), 0.0, frames * GRID)


def word_tokens(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """The transcript's ids, and to which word (counted from 0) each belongs: that of its last letter's place."""
    ids = tokenizer.encode(text)
    ends = np.cumsum([len(tokenizer.decode_bytes([id_])) for id_ in ids])
    spaces = np.array([k for k, letter in enumerate(text) if letter == " "], int)
    return np.array(ids), np.searchsorted(spaces, ends - 1)


def emissions(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """First and last frame of every token on the best CTC path. scores [frames, RANKS + 1] log probabilities -> [tokens, 2].

    States are blank, token, blank, token, ..., blank (Graves et al. 2006, section 4.1); from a state one may stay, go on by one, or
    skip the blank between two different tokens. A clip with too few frames for its tokens gets every token at a share of its length.
    """
    frames, count = len(scores), 2 * len(ids) + 1
    labels = np.full(count, sizes.RANKS)
    labels[1::2] = ids
    skips = np.zeros(count, bool)
    skips[3::2] = ids[1:] != ids[:-1]
    best = np.full(count, -np.inf)
    best[:2] = scores[0, labels[:2]]
    came = np.zeros((frames, count), np.int8)
    for frame in range(1, frames):
        stay, one = best, np.concatenate([[-np.inf], best[:-1]])
        two = np.where(skips, np.concatenate([[-np.inf, -np.inf], best[:-2]]), -np.inf)
        choices = np.stack([stay, one, two])
        came[frame] = choices.argmax(0)
        best = choices.max(0) + scores[frame, labels]
    state = count - 1 if best[-1] >= best[-2] else count - 2
    if not np.isfinite(best[state]):
        even = (np.arange(len(ids)) * frames) // len(ids)
        return np.stack([even, even], 1)
    found = np.zeros((len(ids), 2), int)
    for frame in range(frames - 1, -1, -1):
        if state % 2:
            token = state // 2
            found[token] = frame, max(found[token, 1], frame)
        state -= int(came[frame, state])
    return found
