"""Text that nobody has read aloud: the decoder learns from it how words are spelled and what follows what.

Sound tells how a word is said, not how it is written, and the recordings hold few of the words there are. So the decoder also
answers about sound that is only imagined. An imagined clip says the tokens of a text, misheard here and there and with some left
out. What audio vectors it has is told by `Imagination`, a small convolution that learns, beside the twin, what the ear makes of a clip
whose tokens CTC finds at those places; to that comes a part of what it gets wrong on the real clips of the step, so that the decoder
cannot know the one kind from the other. It is thrown away after training. After "JOIST: A Joint Speech and
Text Streaming Model for ASR" (Sainath et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from demo import sizes
from demo.batches import Movable, Rows, grouped, rows_of
from demo.examples import GRID, Entry, speech_example
from demo.listening import WordTimes
from demo.mishearing import misheard
from demo.texts import is_held_out
from demo.word_strings import word_string
from qwenaudio_np.tokenizer import Tokenizer

TEXTS = ("prose", "examples")  # of text/, which demo.speech wrote
MISHEARD = 0.06  # most letters of a text, as a share, that are taken for others
LEFT_OUT = 0.1  # most tokens of a text that are not heard at all
STRINGS = 0.35  # share of the texts that are strings of digits, letters and commands, so that prose is not all that is expected
STUTTERED = 0.25  # share of those strings in which some words are said twice: one that comes twice is easily written once
WORDS = 60  # positions that a prompt and its answer need beside a clip, about
POOL = 2048  # texts that are sorted by length together
SILENT = -1  # in `tokens`, a vector that says nothing
REACH = 7  # vectors of each of the two convolutions


@dataclass(frozen=True)
class Reading(Movable):
    """Imagined clips, one in each row of prompts."""

    rows: Rows
    tokens: Tensor  # [rows, N], what each vector says, or SILENT
    counts: Tensor  # [rows], how many of N are real


class Reader:
    """The training text without end, in a new order each time."""

    def __init__(self, data: Path, tokenizer: Tokenizer, budget: int, seed: list[int]) -> None:
        self.tokenizer, self.budget, self.random = tokenizer, budget, np.random.default_rng([13, *seed])
        lines = [line for name in TEXTS for line in (data / "text" / f"{name}.tsv").read_text("utf-8").splitlines()]
        self.texts = [text for text in (line.split("\t")[0] for line in lines) if not is_held_out(text)]
        if not self.texts:
            raise SystemExit(f"no text in {data / 'text'}: run python -m demo.speech first")

    def __iter__(self) -> Iterator[Reading]:
        while True:
            order = self.random.permutation(len(self.texts))
            for start in range(0, len(order), POOL):
                clips = [imagined_clip(self._text(k), self.tokenizer, self.random) for k in order[start : start + POOL]]
                groups = list(grouped(sorted(clips, key=vectors_of), lambda clip: vectors_of(clip) + WORDS, self.budget))
                for k in self.random.permutation(len(groups)):
                    yield self._reading(groups[k])

    def _text(self, k: int) -> str:
        if self.random.random() >= STRINGS:
            return self.texts[k]
        words, often = word_string(self.random), self.random.random() < STUTTERED
        return " ".join(word for word in words for _ in range(1 + int(often and self.random.random() < 0.3)))

    def _reading(self, clips: list[tuple[Entry, list[int]]]) -> Reading:
        # Without the words' times no times are asked: imagined vectors do not tell them.
        asked = [speech_example(entry | {"words": None}, len(tokens), self.tokenizer, self.random) for entry, tokens in clips]
        counts = [len(tokens) for _, tokens in clips]
        rows = rows_of(asked, [entry for entry, _ in clips], counts, self.tokenizer, self.random)
        padded = np.full((len(clips), max(counts)), SILENT, np.int64)
        for row, (_, tokens) in enumerate(clips):
            padded[row, : len(tokens)] = tokens
        return Reading(rows, torch.from_numpy(padded), torch.tensor(counts))


def vectors_of(clip: tuple[Entry, list[int]]) -> int:
    """How many vectors an imagined clip has."""
    return len(clip[1])


def imagined_clip(text: str, tokenizer: Tokenizer, random: Generator) -> tuple[Entry, list[int]]:
    """What is asked about (a clip's label, its words timed on the grid) and what each vector says."""
    rate, left_out = random.uniform(0, MISHEARD), random.uniform(0, LEFT_OUT)
    vectors = [SILENT] * int(random.integers(1, 6))
    times: WordTimes = []
    for number, word in enumerate(text.split()):
        begin = len(vectors)
        apart = number > 0 and random.random() >= rate  # otherwise two words are run together
        for token in tokenizer.encode(" " * apart + misheard(word, rate, random)):
            said = SILENT if random.random() < left_out else token
            vectors += [said] * (1 + int(random.random() < 0.25)) + [SILENT] * int(random.integers(1, 4))
        times.append((word, begin * GRID, len(vectors) * GRID))
    vectors += [SILENT] * int(random.integers(1, 6))
    return {"kind": "read", "text": text, "words": times}, vectors


class Imagination(nn.Module):
    """What each audio vector says, and what its neighbours say -> that vector."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(sizes.RANKS + 1, sizes.HIDDEN)  # the last one says nothing
        self.near, self.far = (nn.Conv1d(sizes.HIDDEN, sizes.HIDDEN, REACH, padding=REACH // 2) for _ in range(2))
        self.out = nn.Linear(sizes.HIDDEN, sizes.HIDDEN)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [clips, N], SILENT where nothing is said -> [clips, N, hidden]."""
        x = self.tokens(torch.where(tokens >= 0, tokens, sizes.RANKS)).transpose(1, 2)
        x = F.gelu(self.near(x))
        return self.out((x + F.gelu(self.far(x))).transpose(1, 2))


def imagined(imagination: Imagination, tokens: Tensor, wrong: Tensor) -> Tensor:
    """Vectors [rows, N, hidden] that say `tokens` [rows, N].

    wrong [clips, M, hidden]: what the imagination got wrong on real clips, 0 behind their ends. To each row comes a share, from none
    to all, of one clip's, vector by vector: another voice, another room, and the places that real vectors tell.
    """
    count = min(tokens.shape[1], wrong.shape[1])
    share = torch.rand(len(tokens), 1, 1, device=tokens.device)
    vectors = imagination(tokens)
    vectors[:, :count] += share * wrong[torch.randint(len(wrong), (len(tokens),), device=tokens.device), :count]
    return vectors
