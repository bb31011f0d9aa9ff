"""Which words of two transcripts belong together, and how far apart in time: the alignment with the fewest edits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from qwenaudio_np.special_tokens import TAG_SHAPE

Timed = tuple[str, float, float]  # a word, its start and end in seconds


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Substitutions, insertions and deletions that turn one into the other."""
    return int(_distances(said, heard)[-1, -1])


def matched(said: Sequence[str], heard: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places of equal words in a best alignment."""
    cost = _distances(said, heard)
    i, j, pairs = len(said), len(heard), []
    while i and j:
        equal = said[i - 1] == heard[j - 1]
        if cost[i, j] == cost[i - 1, j - 1] + (not equal):
            i, j = i - 1, j - 1
            if equal:
                pairs.append((i, j))
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def timed_words(text: str) -> list[Timed]:
    """`<|0.00|><|sil|><|0.54|>word<|0.86|>` -> [("word", 0.54, 0.86)]; segments without two boundaries are left out."""
    marks = [(float(m.group()[2:-2]), m.start(), m.end()) for m in TAG_SHAPE.finditer(text) if m.group()[2].isdigit()]
    segments = [(text[a[2] : b[1]].strip(), a[0], b[0]) for a, b in pairwise(marks)]
    return [segment for segment in segments if segment[0] and segment[0] != "<|sil|>"]


def boundary_shifts(said: Sequence[Timed], heard: Sequence[Timed]) -> list[float]:
    """How far off each boundary of each matched word is, seconds."""
    pairs = matched([word for word, _, _ in said], [word for word, _, _ in heard])
    return [abs(said[i][edge] - heard[j][edge]) for i, j in pairs for edge in (1, 2)]


def _distances(said: Sequence[str], heard: Sequence[str]) -> np.ndarray:
    """[i, j]: edits between the first i and the first j words. Source: Levenshtein; Wagner and Fischer 1974."""
    cost = np.zeros((len(said) + 1, len(heard) + 1), int)
    cost[:, 0], cost[0] = np.arange(len(said) + 1), np.arange(len(heard) + 1)
    for i, a in enumerate(said):
        for j, b in enumerate(heard):
            cost[i + 1, j + 1] = min(cost[i, j + 1] + 1, cost[i + 1, j] + 1, cost[i, j] + (a != b))
    return cost
