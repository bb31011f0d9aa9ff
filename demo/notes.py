"""What a note's audio vectors are taught themselves, beside the answer: its pitch, its velocity and its family of instruments.

Without it a note is learned from the three or four tokens of an answer that tell anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from demo import sizes
from demo.examples import Entry
from demo.music import FAMILIES
from demo.padding import own_places
from qwenaudio_np.special_tokens import SPECIAL_TOKENS
from qwenaudio_np.tokenizer import Tokenizer

if TYPE_CHECKING:
    from demo.batches import Batch
    from demo.twin import Twin

KEYS = 128  # of MIDI, and as many velocities
PITCHES, VELOCITIES = (sizes.RANKS + SPECIAL_TOKENS.index(f"<|midi_{name}_0|>") for name in ("pitch", "velocity"))


def played(entry: Entry) -> list[int]:
    """Pitch, velocity, and the family's number."""
    return [entry["pitch"], entry["velocity"], list(FAMILIES).index(entry["instrument"])]


def note_loss(twin: Twin, batch: Batch, vectors: Tensor) -> Tensor:
    """Three cross entropies of the mean of each note's vectors, read through the embeddings of what the answer would say."""
    mean = mean_vectors(batch, batch.notes, vectors)
    weight = twin.wte.weight
    read = (weight[PITCHES : PITCHES + KEYS], weight[VELOCITIES : VELOCITIES + KEYS], embedded(twin, batch.families))
    return torch.stack([F.cross_entropy(mean @ rows.T, batch.played[:, k]) for k, rows in enumerate(read)]).sum()


def embedded(twin: Twin, names: list[list[int]]) -> Tensor:
    """Each name's mean embedding [names, hidden]."""
    return torch.stack([twin.wte.weight[ids].mean(0) for ids in names])


def mean_vectors(batch: Batch, rows: Tensor, vectors: Tensor) -> Tensor:
    """The mean of each row's real vectors [rows, hidden], of the batch's [clips, N, hidden]."""
    counts = batch.positions[rows] // 2
    inside = own_places(counts, vectors.shape[1])
    return (vectors[rows] * inside[..., None]).sum(1) / counts[:, None]


def family_ids(tokenizer: Tokenizer) -> list[list[int]]:
    """The tokens of each family's name."""
    return [tokenizer.encode(name) for name in FAMILIES]
