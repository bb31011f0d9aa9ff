"""What a training step is made of: clips of similar length, each with a task, its prompt and the right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from demo import sizes
from demo.curriculum import SPEECH, Curriculum
from demo.examples import Entry, Example, examples
from demo.hearing import Heard, cuts_of, heard, kept
from demo.kinds import KINDS, kind_ids
from demo.listening import SPECIAL, heard_at
from demo.notes import family_ids, played
from demo.sounds import Cut
from qwenaudio_np.audio import HOP, position_count
from qwenaudio_np.special_tokens import AUDIO_START
from qwenaudio_np.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

POOL = 2048  # clips that are sorted by length together
ROWS = 256  # most clips of a batch
CORRUPTED = 0.04  # share of the tokens that every second answer is shown wrong, so that the decoder listens rather than guesses
SOUGHT = 20.0  # how much more the start of a word that a later turn asks for counts: one token of a long chat, and the only one to be found
FIRST_LETTERS = 97  # the rank of "a"; before it are signs, digits and capitals, which no transcript has

Item = TypeVar("Item")


class Movable:
    """A dataclass whose tensors go to a device together."""

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]  # subclasses are dataclasses
        return type(self)(**{name: part.to(device) if isinstance(part, Tensor | Movable) else part for name, part in parts.items()})


@dataclass(frozen=True)
class Rows(Movable):
    """Prompts with their answers, each about one clip."""

    ids: Tensor  # [rows, length]
    targets: Tensor  # [rows, length], the next token where it is part of an answer, else -100
    heard: Tensor  # [rows, length, 2], the first and last position at which the next token is heard, else -1
    weights: Tensor  # [rows, length], how much the next token counts
    spans: Tensor  # [rows], where `<audio>` stands


@dataclass(frozen=True)
class Batch(Movable):
    """One step: clip k is asked about in row k."""

    rows: Rows
    cuts: list[Cut]  # where the rows' sound comes from
    samples: Tensor  # [rows], how long each is
    kept: Tensor  # [rows], whether its loudness and sound must stay
    positions: Tensor  # [rows], the encoder's
    speech: Tensor  # [rows that speak], their indices
    bound: Tensor  # [of these, the rows of sources that are not free], their indices: another model may hold them (likeness.py)
    told: Tensor  # [rows that speak and whose words are taught], their indices
    spoken: list[list[int]]  # the transcript's ids of each of those
    notes: Tensor  # [rows that are notes], their indices
    played: Tensor  # [notes, 3], each one's pitch, velocity, and the number of its family
    families: list[list[int]]  # the ids of their names
    scenes: Tensor  # [rows that are scenes], their indices
    kinds: Tensor  # [scenes], the number of each one's kind
    kind_names: list[list[int]]  # the ids of the kinds' names


class Feeder:
    """Training clips without end, drawn so that each kind has its share of the sound, with tasks and speeds drawn anew each time."""

    def __init__(self, entries: list[Entry], tokenizer: Tokenizer, budget: int, seed: list[int], curriculum: Curriculum) -> None:
        self.entries, self.tokenizer, self.budget, self.course = entries, tokenizer, budget, curriculum
        self.random = np.random.default_rng([7, *seed])
        self.odds = curriculum.odds(entries)

    def __iter__(self) -> Iterator[Batch]:
        """Batches of about `budget` vectors of sound and tokens of text, padding included."""
        while True:
            drawn = self.random.choice(len(self.entries), POOL, p=self.odds)
            rows = sorted((heard(self.entries, int(k), self.random) for k in drawn), key=lambda row: row.vectors)
            pool = [(row, examples(row.entry, row.vectors, self.tokenizer, self.random)) for row in rows]
            groups = list(grouped(pool, lambda asked: len(asked[1].ids), self.budget))
            for k in self.random.permutation(len(groups)):
                yield collate(groups[k], self.tokenizer, self.random, self.course)


def grouped(items: Iterable[Item], size: Callable[[Item], int], budget: int) -> Iterator[list[Item]]:
    """Neighbours together: at most ROWS, filling at most `budget` positions when padded to the longest; one alone may be longer."""
    group: list[Item] = []
    longest = 0
    for item in items:
        longest = max(longest, size(item))
        if group and ((len(group) + 1) * longest > budget or len(group) == ROWS):
            yield group
            group, longest = [], size(item)
        group.append(item)
    if group:
        yield group


def collate(group: list[tuple[Heard, Example]], tokenizer: Tokenizer, random: np.random.Generator, course: Curriculum) -> Batch:
    """Rows of sound, each with one of its tasks -> one padded batch."""
    heard_, asked = [row for row, _ in group], [example for _, example in group]
    entries = [row.entry for row in heard_]
    speech = [k for k, entry in enumerate(entries) if entry["kind"] in SPEECH]
    bound = [k for k in speech if not course.is_free(entries[k])]
    taught = [course.teaches(entry) for entry in entries]
    told = [k for k in speech if taught[k]]
    notes = [k for k, entry in enumerate(entries) if entry["kind"] == "note"]
    scenes = [k for k, entry in enumerate(entries) if entry["kind"] == "scene"]
    rows = rows_of(asked, entries, [row.vectors for row in heard_], tokenizer, random)
    rows.weights[~torch.tensor(taught)] = 0.0  # answers that are not taught do not count
    return Batch(
        rows=rows,
        cuts=cuts_of(heard_),
        samples=torch.tensor([row.samples for row in heard_]),
        kept=torch.tensor([kept(entry) for entry in entries]),
        positions=torch.tensor([position_count(row.samples) for row in heard_]),
        speech=torch.tensor(speech, dtype=torch.long),
        bound=torch.tensor(bound, dtype=torch.long),
        told=torch.tensor(told, dtype=torch.long),
        spoken=[tokenizer.encode(entries[k]["text"]) for k in told],
        notes=torch.tensor(notes, dtype=torch.long),
        played=torch.tensor([played(entries[k]) for k in notes], dtype=torch.long).reshape(-1, 3),
        families=family_ids(tokenizer),
        scenes=torch.tensor(scenes, dtype=torch.long),
        kinds=torch.tensor([KINDS.index(entries[k]["text"]) for k in scenes], dtype=torch.long),
        kind_names=kind_ids(tokenizer),
    )


def frames_of(batch: Batch) -> Tensor:
    """Mel frames of each row that the encoder sees."""
    return 2 * batch.positions


def shape_of(batch: Batch) -> tuple[int, int]:
    """Rows and samples of the batch's waveforms."""
    return len(batch.samples), max(int(batch.samples.max()), HOP)


def rows_of(asked: list[Example], entries: list[Entry], counts: list[int], tokenizer: Tokenizer, random: np.random.Generator) -> Rows:
    """Examples, each clip's label and its number of audio vectors -> padded rows."""
    length, start = max(len(example.ids) for example in asked), tokenizer.special_ids[AUDIO_START]
    ids, targets = np.zeros((len(asked), length), np.int64), np.full((len(asked), length), -100, np.int64)
    heard, weights = np.full((len(asked), length, 2), -1, np.int64), np.ones((len(asked), length), np.float32)
    for row, (example, entry, count) in enumerate(zip(asked, entries, counts, strict=True)):
        n = len(example.ids)
        ids[row, :n] = example.ids
        for turn, (first, last) in enumerate((*example.earlier, (example.answer, n))):
            answer = example.ids[first:last]
            if turn:  # its first special token is the word's start
                weights[row, first - 1 + next(k for k, id_ in enumerate(answer) if tokenizer.token_bytes(id_).startswith(SPECIAL))] = SOUGHT
            if answer:
                targets[row, first - 1 : last - 1] = answer
                vectors = heard_at(answer, entry["words"], count, tokenizer)
                heard[row, first - 1 : last - 1] = np.where(vectors < 0, -1, vectors + example.ids.index(start) + 1)
        wrong = example.answer + np.flatnonzero(random.random(n - example.answer) < CORRUPTED * (random.random() < 0.5))
        ids[row, wrong] = random.integers(FIRST_LETTERS, sizes.RANKS, len(wrong))
    return Rows(*map(torch.from_numpy, (ids, targets, heard, weights, (ids == start).argmax(1))))
