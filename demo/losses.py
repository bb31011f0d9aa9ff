"""What the twin is taught in a step: four losses on real clips, three on imagined ones.

On real clips the answer's next token (cross entropy); CTC (Graves et al. 2006) of the transcript over the audio vectors; the time of each
vector; and where one head of the decoder looks while it answers. CTC and the times read the vectors through the embeddings of the words
and times themselves, so that sound comes to lie where they lie, and the decoder need only learn to copy; only the score of CTC's blank
is thrown away afterwards. The head that is shown where each next word or time is heard keeps the decoder's place: copying by content
alone repeats words, or leaves some out. Notes and scenes have a fifth (notes.py, kinds.py). The decoder's two losses are taken once
more on imagined clips, for the spelling of words, and what imagines them has its own (reading.py). A run that is to answer speech as
another model does has two more (likeness.py).
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo import sizes
from demo.batches import Batch, Rows
from demo.examples import GRID
from demo.kinds import kind_loss
from demo.likeness import likeness_losses
from demo.notes import note_loss
from demo.padding import own_places
from demo.reading import SILENT, Imagination, Reading, imagined
from demo.throats import other_throats
from demo.twin import Twin
from qwenaudio_np.special_tokens import SPECIAL_TOKENS, timestamp_token

TIME_BLUR = (0.06, 0.24, 0.4, 0.24, 0.06)  # what a time is taught as: itself and its neighbours on the grid, so that near is not wrong


class Trained(Protocol):
    """What the losses are taken of."""

    twin: Twin
    like: Twin | None  # whose answers to speech it keeps to
    blank: nn.Linear  # CTC's score for "no token ends here"
    imagination: Imagination


class Mels(NamedTuple):
    """The sound of a step, [rows, 80, frames] each."""

    heard: Tensor  # by the twin: in rooms, through microphones, before noises, parts of it covered up
    plain: Tensor  # as it was recorded: so the model hears it that the twin is to be like


def losses(run: Trained, batch: Batch, mels: Mels, reading: Reading | None, half: bool) -> dict[str, Tensor]:
    """The losses of one step, by their names in curriculum.WEIGHTS. `half`: layers in bfloat16, losses never."""
    mel = other_throats(mels.heard, batch.told)
    with torch.autocast(mel.device.type, torch.bfloat16, enabled=half):
        vectors = run.twin.audio(mel, batch.positions)
        hidden, listening = run.twin(batch.rows.ids, batch.rows.spans, vectors, batch.positions // 2)
    vectors, hidden, listening = vectors.float(), hidden.float(), listening.float()
    scores = ctc_scores(run.twin, run.blank, vectors[batch.told])
    found = {
        "ctc": ctc_loss(scores, batch),
        "place": place_loss(run.twin, batch, vectors),
        **({"note": note_loss(run.twin, batch, vectors)} if len(batch.notes) else {}),
        **({"kind": kind_loss(run.twin, batch, vectors)} if len(batch.scenes) else {}),
        "answer": answer_loss(run.twin, batch.rows, hidden),
        "listening": listening_loss(run.twin, batch.rows, listening),
    }
    if run.like:
        found |= likeness_losses(run.twin, run.like, batch, mels.plain, (vectors, hidden), half)
    return found | (reading_losses(run, reading, batch, vectors, scores, half) if reading else {})


def reading_losses(run: Trained, reading: Reading, batch: Batch, vectors: Tensor, scores: Tensor, half: bool = False) -> dict[str, Tensor]:
    """The decoder's two losses on imagined clips: the answer, and where to look; and the imagination's own. None where nobody speaks."""
    if not batch.spoken:
        return {}
    real, counts = vectors[batch.told].detach(), batch.positions[batch.told] // 2
    inside = own_places(counts, real.shape[1])
    said = scores.argmax(-1)
    told = run.imagination(torch.where(inside & (said < sizes.RANKS), said, SILENT))
    wrong = (real - told) * inside[..., None]
    with torch.no_grad():
        made = imagined(run.imagination, reading.tokens, wrong)
    with torch.autocast(made.device.type, torch.bfloat16, enabled=half):
        hidden, listening = run.twin(reading.rows.ids, reading.rows.spans, made, reading.counts)
    return {
        "reading": answer_loss(run.twin, reading.rows, hidden.float()),
        "following": listening_loss(run.twin, reading.rows, listening.float()),
        "imagining": wrong.square().sum() / real[inside].square().sum(),
    }


def answer_loss(twin: Twin, rows: Rows, hidden: Tensor) -> Tensor:
    """Cross entropy per answer token, weighted, of times with TIME_BLUR."""
    asked = rows.targets >= 0
    targets = rows.targets[asked]
    scores = twin.logits(hidden[asked]).log_softmax(-1)
    loss = -scores.gather(1, targets[:, None])[:, 0]
    grid = time_rows(targets.device)
    times = (targets >= grid[0]) & (targets <= grid[-1])
    loss[times] = blurred(scores[times][:, grid], (targets[times] - grid[0]) // (grid[1] - grid[0]))
    return mean_that_counts(loss, rows.weights[asked])


def mean_that_counts(loss: Tensor, weights: Tensor) -> Tensor:
    """The weighted loss [n] per token that counts: answers that nobody told (weight 0, people.py) do not thin out the others."""
    return (loss * weights).sum() / (weights > 0).sum().clamp(min=1)


def time_rows(device: torch.device | None = None) -> Tensor:
    """The ids of the times on the grid, from 0 to 30 s."""
    first, last, second = (sizes.RANKS + SPECIAL_TOKENS.index(timestamp_token(seconds)) for seconds in (0.0, 30.0, GRID))
    return torch.arange(first, last + 1, second - first, device=device)


def blurred(scores: Tensor, places: Tensor) -> Tensor:
    """Cross entropy [n] of log probabilities [n, times] with each place on the grid and its neighbours, as TIME_BLUR shares it out."""
    reach = len(TIME_BLUR) // 2
    near = places[:, None] + torch.arange(-reach, reach + 1, device=places.device)
    return -(scores.gather(1, near.clamp(0, scores.shape[1] - 1)) @ torch.tensor(TIME_BLUR, device=scores.device))


def place_loss(twin: Twin, batch: Batch, vectors: Tensor) -> Tensor:
    """Cross entropy of each audio vector with its own time, read through the embeddings of the times."""
    clip, place = own_places(batch.positions // 2, vectors.shape[1]).nonzero(as_tuple=True)
    scores = vectors[clip, place] @ twin.wte.weight[time_rows(vectors.device)].T
    return blurred(scores.log_softmax(-1), place).mean()


def listening_loss(twin: Twin, rows: Rows, listening: Tensor) -> Tensor:
    """- log of the listening head's share at the right vectors, weighted, per token that is heard somewhere; 0 where none is."""
    row, place = (rows.heard[..., 0] >= 0).nonzero(as_tuple=True)
    if not len(row):
        return listening.sum() * 0.0
    first, last = rows.heard[row, place, :, None].unbind(1)
    positions = torch.arange(listening.shape[1], device=listening.device)
    looks = twin.looks(listening)[row, place].masked_fill((positions < first) | (positions > last), -math.inf)
    return mean_that_counts(-looks.logsumexp(-1), rows.weights[row, place])


def ctc_loss(scores: Tensor, batch: Batch) -> Tensor:
    """CTC per spoken token, of the speaking clips' scores [clips, N, RANKS + 1]; 0 where nobody speaks."""
    if not batch.spoken:
        return scores.sum() * 0.0
    counts = torch.tensor([len(ids) for ids in batch.spoken])
    spoken = torch.tensor([id_ for ids in batch.spoken for id_ in ids], device=scores.device)
    lengths = (batch.positions[batch.told] // 2).cpu()
    total = F.ctc_loss(scores.transpose(0, 1), spoken, lengths, counts, blank=sizes.RANKS, reduction="sum", zero_infinity=True)
    return total / counts.sum()


def ctc_scores(twin: Twin, blank: nn.Linear, vectors: Tensor) -> Tensor:
    """Audio vectors [..., hidden] -> log probabilities [..., RANKS + 1], the blank last."""
    return torch.cat([vectors @ twin.wte.weight[: sizes.RANKS].T, blank(vectors)], -1).log_softmax(-1)
