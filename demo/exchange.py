"""Noises and music with each other's audio vectors, but for what the channel says (channel.py): so the decoder learns to believe it.

The scenes of the training a model knows by heart: whatever one more number says about them, there is nothing left to learn from it,
though of sounds that it never heard the number tells more than all the rest. So where a noise or a piece of music is asked about, the
decoder is given the vectors of another one in the batch, and along the channel's direction those of the clip itself: only that is right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demo.batches import Batch
from demo.kinds import KINDS
from demo.twin import Twin

UNREAD = 1e-3  # how little of the mean direction's share a direction may have that counts as the channel's


def channel_of(twin: Twin) -> Tensor:
    """The direction [hidden] of the decoder's stream that no block reads. Raises SystemExit where there is none."""
    readers = [pair for b in twin.h for pair in ((b.ln_1, b.attn.c_attn), (b.ln_2, b.mlp.w1), (b.ln_2, b.mlp.w2))]
    read = [layer.weight.detach() * norm.weight.detach() for norm, layer in readers]
    shares, directions = torch.linalg.eigh(torch.stack([part.T @ part for part in read]).sum(0))
    if shares[0] > UNREAD * shares.mean():
        raise SystemExit("the model has no channel whose meaning is still to be learned: run python -m demo.channel first")
    return directions[:, 0]


def exchanged(vectors: Tensor, batch: Batch, told: Tensor) -> Tensor:
    """vectors [rows, N, hidden]: of noises and music, but along `told`, the first ones of a clip drawn among those as long or longer.

    Stretched to the same length, they would show by their times that they are not the clip's own.
    """
    kinds, counts, found = [KINDS[kind] for kind in batch.kinds.tolist()], (batch.positions // 2).tolist(), vectors.clone()
    rows = [row for row, kind in zip(batch.scenes.tolist(), kinds, strict=True) if kind in ("noise", "music")]
    for row in rows:
        others = [other for other in rows if counts[other] >= counts[row]]
        lent = vectors[others[int(torch.randint(len(others), ()))], : counts[row]]
        own = vectors[row, : counts[row]]
        found[row, : counts[row]] = lent + torch.outer((own - lent) @ told, told)
    return found
