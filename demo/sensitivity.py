"""The direction in which a clip's audio vectors are moved to change one answer much and all others little.

What is added to every vector of a clip moves each answer; to first order by its product with that answer's gradient. Of all additions that
move noise from music by as much, the one that costs the answers about speech and notes least is F^-1 g: g is the mean gradient of what
parts the two answers, and F the second moment of the others' gradients, the Fisher information (Amari 1998).
"""

from __future__ import annotations

import torch
from torch import Tensor

from demo.batches import Batch
from demo.kinds import KINDS
from demo.twin import Twin

DAMPING = 1.0  # how much a direction counts in which nothing was seen to change, beside the mean one


def gradients(twin: Twin, batch: Batch, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """By an addition to all vectors of a clip: what parts noise from music where that is asked, and the log probability of other answers.

    vectors [rows, N, hidden] -> [asked, hidden], [others, hidden].
    """
    rows = batch.rows
    added = torch.zeros(len(vectors), 1, vectors.shape[2], requires_grad=True)
    with torch.enable_grad():
        hidden, _ = twin(rows.ids, rows.spans, vectors + added, batch.positions // 2)
        scores = twin.logits(hidden)
        noise, music = (batch.kind_names[KINDS.index(name)][0] for name in ("noise", "music"))
        first = (rows.targets >= 0).int().argmax(1)  # where each answer begins; a scene's with the kind, if tags ask
        named = batch.scenes[torch.isin(rows.targets[batch.scenes, first[batch.scenes]], torch.tensor([noise, music]))]
        begun = scores[named, first[named]]
        told = rows.targets >= 0
        told[batch.scenes] = False
        answers = scores[told].log_softmax(-1).gather(1, rows.targets[told][:, None])
        (found,) = torch.autograd.grad((begun[:, noise] - begun[:, music]).sum() + answers.sum(), added)
    return found[named, 0], found[told.any(1), 0]


def direction(asked: Tensor, others: Tensor) -> Tensor:
    """[hidden]; along it the two answers part by 1 to first order. asked [clips, hidden], others [clips, hidden]: gradients."""
    wanted, costs = asked.mean(0), others.T @ others / len(others)
    costs += DAMPING * costs.trace() / len(costs) * torch.eye(len(costs))
    found = torch.linalg.solve(costs, wanted)
    return found / (found @ wanted)
