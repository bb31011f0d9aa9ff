"""A model that learns more, and answers speech as it did: learning without forgetting (Li and Hoiem 2016).

Sounds are learned at the cost of people's words: the training's voices are synthesisers', and what a model has learned to make of
people fades with every step on them. So another model, which stays as it is, hears the speech of each step too; the one that learns is
held to its vectors and, at every place of an answer that is not taught, to its scores. It is told much more than a transcript says: each
vector, and each word that might have been said. Where an answer is taught its scores are free, so that what the other gets wrong can be
mended. The other hears speech as it was recorded, the one that learns as a microphone in some room might have heard it: so it also learns
to hear through rooms, noise and narrow lines what it would have heard without them, of people whose words nobody wrote down.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from demo.batches import Batch
from demo.padding import own_places
from demo.twin import Twin


def likeness_losses(twin: Twin, like: Twin, batch: Batch, mel: Tensor, heard: tuple[Tensor, Tensor], half: bool) -> dict[str, Tensor]:
    """How far what `twin` makes of the speech is from what `like` makes of it: of the vectors' square, and of its scores.

    mel [rows, 80, frames] is what `like` hears; `heard`: vectors [rows, N, hidden] and last hidden states [rows, length, hidden] of
    `twin`, of the same clips through microphones and by other throats. Whatever is asked about speech that is not taught (its weights
    are 0) is held, what kind of sound it is too; nothing is of free sources. None where nothing is held.
    """
    speech = batch.bound
    if not len(speech):
        return {}
    rows, positions = batch.rows, batch.positions[speech]
    with torch.no_grad(), torch.autocast(mel.device.type, torch.bfloat16, enabled=half):
        was = like.audio(mel[speech], positions)
        answered, _ = like(rows.ids[speech], rows.spans[speech], was, positions // 2)
    was = was.float()
    vectors, hidden = (part[speech] for part in heard)
    inside = own_places(positions // 2, vectors.shape[1])
    asked = (rows.targets[speech] >= 0) & (rows.weights[speech] == 0.0)
    scores = like.logits(answered[asked].float()).softmax(-1).detach()
    difference = F.kl_div(twin.logits(hidden[asked]).log_softmax(-1), scores, reduction="sum")
    return {
        "vectors": (vectors - was)[inside].square().sum() / was[inside].square().sum(),
        "answers": difference / asked.sum().clamp(min=1),
    }
