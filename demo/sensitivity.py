"""The direction in which a clip's audio vectors are moved to part noise from music, and change answers about speech and notes little.

What is added to every vector of a clip moves each answer; to first order by its product with that answer's gradient. Of all additions that
part noise from music by as much, F^-1 g moves the answers about speech and notes least: g is the mean gradient of what parts the two, and F
the second moment of the others' gradients. That is the natural gradient (Amari 1998) with the empirical Fisher information: of the answers
that the clips' labels give, not of those that the model would, and damped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demo.batches import Batch
from demo.kinds import KINDS
from demo.twin import Twin

DAMPING = 1.0  # how much a direction counts in which nothing was seen to change, beside the mean one


def gradients(twin: Twin, batch: Batch, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """By an addition to all vectors of a clip: of what parts noise from music where that is asked, and of answers about speech and notes.

    What parts the two is the difference of the scores of their names' first tokens; of the others it is the answers' log probability.
    Scenes with other answers are left out. vectors [rows, N, hidden] -> [asked, hidden], [others, hidden].
    """
    rows = batch.rows
    added = torch.zeros(len(vectors), 1, vectors.shape[2], requires_grad=True)
    with torch.enable_grad():
        hidden, _ = twin(rows.ids, rows.spans, vectors + added, batch.positions // 2)
        scores = twin.logits(hidden)
        noise, music = (batch.kind_names[KINDS.index(name)][0] for name in ("noise", "music"))
        first = (rows.targets >= 0).int().argmax(1)  # where each answer begins; a scene's mostly with the kind
        named = batch.scenes[torch.isin(rows.targets[batch.scenes, first[batch.scenes]], torch.tensor([noise, music]))]
        begun = scores[named, first[named]]
        told = rows.targets >= 0
        told[batch.scenes] = False
        answers = scores[told].log_softmax(-1).gather(1, rows.targets[told][:, None])
        (found,) = torch.autograd.grad((begun[:, noise] - begun[:, music]).sum() + answers.sum(), added)
    return found[named, 0], found[told.any(1), 0]


def direction(asked: Tensor, others: Tensor) -> Tensor:
    """[hidden]; along it the two answers part by 1 to first order. asked [clips, hidden], others [clips, hidden]: gradients.

    Raises ValueError where there is nothing to tell apart, or nothing else to spare.
    """
    if not (len(asked) and len(others)):
        found = f"{len(asked)} noises and pieces of music, {len(others)} other clips"
        raise ValueError(f"{found}: expected some of both among the first batches; hear more hours, or pack clips of all kinds")
    wanted, costs = asked.mean(0), others.T @ others / len(others)
    costs += DAMPING * costs.trace() / len(costs) * torch.eye(len(costs))
    found = torch.linalg.solve(costs, wanted)
    return found / (found @ wanted)
