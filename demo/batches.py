"""Clips of similar length together: from stored features to the tensors of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from demo import sizes
from demo.examples import Entry, Example, examples
from demo.features import stored
from demo.listening import WordTimes, heard_at
from qwenaudio_np.special_tokens import AUDIO_START
from qwenaudio_np.tokenizer import Tokenizer

POOL = 4096  # clips that are sorted by length together
ROWS = 48  # most clips of a batch
WORDS = 60  # positions that a prompt and its answer need beside the clip, about
SHARES = {"note": 0.7, "words": 0.7}  # of the clips of a kind, how many an epoch takes; of other kinds all
CORRUPTED = 0.04  # share of the tokens that every second answer is shown wrong, so that the decoder listens rather than guesses
FIRST_LETTERS = 97  # the rank of "a"; before it are signs, digits and capitals, which no transcript has


Item = TypeVar("Item")
Clip = tuple[Entry, np.ndarray]  # a clip's entry and its features [T, state]


@dataclass(frozen=True)
class Rows:
    """Prompts with their answers, each about one clip."""

    ids: Tensor  # [rows, length]
    targets: Tensor  # [rows, length], the next token where it is part of an answer, else -100
    heard: Tensor  # [rows, length, 2], the first and last position at which the next token is heard, else -1
    spans: Tensor  # [rows], where `<audio>` stands


@dataclass(frozen=True)
class Batch:
    """One step: clip k is asked about in row k."""

    rows: Rows
    features: Tensor  # [rows, T, state]
    positions: Tensor  # [rows], how many of T are real
    speech: Tensor  # [rows that speak], their indices
    spoken: list[list[int]]  # the transcript's ids of each of those


class Feeder:
    """All training clips, in a new order and with new tasks in every epoch; clips that appear meanwhile join at the next one."""

    def __init__(self, data: Path, tokenizer: Tokenizer, budget: int) -> None:
        self.data, self.tokenizer, self.budget = data, tokenizer, budget

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of at most `budget` positions of sound and text, padding included."""
        random = np.random.default_rng([7, number])
        clips = [clip for clip in stored(self.data) if clip[0]["split"] == "train" and random.random() < SHARES.get(clip[0]["kind"], 1.0)]
        order = random.permutation(len(clips))
        for pool in np.split(order, range(POOL, len(order), POOL)):
            ordered = sorted(pool, key=lambda k: clips[k][0]["positions"])
            groups = list(grouped(ordered, lambda k: clips[k][0]["positions"] // 2, self.budget))
            for k in random.permutation(len(groups)):
                yield self._batch([clips[i] for i in groups[k]], random)

    def _batch(self, clips: list[Clip], random: np.random.Generator) -> Batch:
        asked = [examples(entry, entry["positions"] // 2, self.tokenizer, random) for entry, _ in clips]
        return collate(asked, [(entry, mask(rows, random)) for entry, rows in clips], self.tokenizer, random)


def grouped(ordered: Iterable[Item], vectors: Callable[[Item], int], budget: int) -> Iterator[list[Item]]:
    """Neighbours together: at most ROWS clips, and at most `budget` vectors and words. `ordered`: by their number of vectors."""
    group: list[Item] = []
    for item in ordered:  # the last of a group is its longest
        if group and ((len(group) + 1) * (vectors(item) + WORDS) > budget or len(group) == ROWS):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def mask(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """[T, state] with up to two short spans of silence, as if a word had been coughed over."""
    rows = rows.astype(np.float32)
    for _ in range(random.integers(0, 3) if len(rows) > 100 else 0):
        start = random.integers(0, len(rows) - 16)
        rows[start : start + random.integers(4, 16)] = 0.0
    return rows


def collate(asked: list[Example], clips: list[Clip], tokenizer: Tokenizer, random: np.random.Generator) -> Batch:
    """Examples and their features -> one padded batch."""
    most = max(len(rows) for _, rows in clips)
    features = np.zeros((len(clips), most + most % 2, sizes.STATE), np.float32)
    for row, (_, rows) in enumerate(clips):
        features[row, : len(rows)] = rows
    speech = [k for k, (entry, _) in enumerate(clips) if entry["kind"] in ("read", "words")]
    return Batch(
        rows=rows_of(asked, [entry["words"] for entry, _ in clips], [len(rows) // 2 for _, rows in clips], tokenizer, random),
        features=torch.from_numpy(features),
        positions=torch.tensor([len(rows) for _, rows in clips]),
        speech=torch.tensor(speech, dtype=torch.long),
        spoken=[tokenizer.encode(clips[k][0]["text"]) for k in speech],
    )


def rows_of(
    asked: list[Example], timed: list[WordTimes | None], counts: list[int], tokenizer: Tokenizer, random: np.random.Generator
) -> Rows:
    """Examples, each clip's timed words and its number of audio vectors -> padded rows."""
    length, start = max(len(example.ids) for example in asked), tokenizer.special_ids[AUDIO_START]
    ids, targets = np.zeros((len(asked), length), np.int64), np.full((len(asked), length), -100, np.int64)
    heard = np.full((len(asked), length, 2), -1, np.int64)
    for row, (example, words, count) in enumerate(zip(asked, timed, counts, strict=True)):
        n, answer = len(example.ids), example.ids[example.answer :]
        ids[row, :n] = example.ids
        targets[row, example.answer - 1 : n - 1] = answer
        vectors = heard_at(answer, words, count, tokenizer)
        heard[row, example.answer - 1 : n - 1] = np.where(vectors < 0, -1, vectors + example.ids.index(start) + 1)
        wrong = example.answer + np.flatnonzero(random.random(n - example.answer) < CORRUPTED * (random.random() < 0.5))
        ids[row, wrong] = random.integers(FIRST_LETTERS, sizes.RANKS, len(wrong))
    return Rows(*map(torch.from_numpy, (ids, targets, heard, (ids == start).argmax(1))))
