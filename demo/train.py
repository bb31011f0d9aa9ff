"""Train the twin: `python -m demo.train --data build/demo --out build/demo/twin.pt --steps 20000`.

Four losses on real clips: the answer's next token (cross entropy); CTC (Graves et al. 2006) of the transcript over the audio vectors; the
time of each vector; and where one head of the decoder looks while it answers. CTC and the times read the vectors through the embeddings
of the words and times themselves, so that sound comes to lie where they lie, and the decoder need only learn to copy; only the score of
CTC's blank is thrown away afterwards. The head that is shown where each next word or time is heard keeps the decoder's place: copying by
content alone repeats words, or leaves some out. The decoder's two losses are taken once more on imagined clips, for the spelling of
words, and what imagines them has its own (reading.py). Muon trains the blocks' matrices, AdamW the rest.

Stopped and started again, training goes on from the last minute's mark; `--steps` may be changed then.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo import restart, sizes, whisper, words
from demo.batches import Batch, Feeder, Rows
from demo.examples import GRID
from demo.muon import Muon
from demo.progress import Means, Run, schedule
from demo.reading import SILENT, Imagination, Reader, Reading, imagined
from demo.twin import Twin
from qwenaudio_np.special_tokens import SPECIAL_TOKENS, timestamp_token

WEIGHTS = {"answer": 1.0, "listening": 0.3, "ctc": 0.6, "place": 0.15, "reading": 0.5, "following": 0.15, "imagining": 1.0}
TIME_BLUR = (0.06, 0.24, 0.4, 0.24, 0.06)  # what a time is taught as: itself and its neighbours on the grid, so that near is not wrong
BLOCKS = ("audio.blocks.", "audio.proj.", "h.")  # whose matrices Muon trains; AdamW has the embeddings, norms and biases
WARM_UP = 150  # steps
SETTLING = 40  # steps
LIKELY_BLANK = 10.0  # CTC's score for it, to begin with: about what a trained one has
REPORT_EVERY = 50  # steps


class Training(Run):
    """The twin, CTC's score for "no token ends here" (hidden -> 1), what imagines clips, and their optimisers."""

    def __init__(self) -> None:
        self.twin, self.blank, self.imagination = new_twin(), nn.Linear(sizes.HIDDEN, 1), Imagination()
        matrices = {name: parameter for name, parameter in self.twin.named_parameters() if name.startswith(BLOCKS) and parameter.ndim == 2}
        rest = [parameter for name, parameter in self.twin.named_parameters() if name not in matrices]
        rest += [*self.blank.parameters()]
        parts = [(parameter, 3 if "c_attn" in name else 1) for name, parameter in matrices.items()]  # query, key and value are three
        muon = Muon(parts, momentum=0.95, weight_decay=0.05)
        groups = [{"params": rest}, {"params": [*self.imagination.parameters()], "times": 4.0}]
        adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
        super().__init__({"twin": self.twin, "blank": self.blank, "imagination": self.imagination, "muon": muon, "adam": adam})


def main() -> None:
    """Train until `--steps`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--out", type=Path, default=Path("build/demo/twin.pt"))
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--rate", type=float, default=1.2e-3, help="largest learning rate")
    parser.add_argument("--budget", type=int, default=4800, help="positions of a batch")
    parser.add_argument("--read-every", type=int, default=1, help="steps of which one also reads text")
    parser.add_argument("--start", type=Path, help="a checkpoint to begin from (demo.restart), where there is no mark of an earlier run")
    parser.add_argument("--bfloat16", action="store_true", help="matrix products in bfloat16: faster where the processor knows it")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # attention that looks at one place is next to nothing everywhere else
    torch.manual_seed(1)
    run = Training()
    run.load(arguments.out)
    torch.manual_seed(1 + run.epoch)
    tokenizer = words.load(arguments.data)
    feeder = Feeder(arguments.data, tokenizer, arguments.budget)
    reader = iter(Reader(arguments.data, tokenizer, arguments.budget, run.epoch))
    with suppress(KeyboardInterrupt):
        if arguments.start and not run.step:
            restart.put_into(run.twin, restart.halves(arguments.start)[1])
            settle(run, feeder, reader)
        while run.step < arguments.steps:
            one_epoch(run, feeder, reader, arguments)
            run.epoch += 1
    run.save(arguments.out)


def new_twin() -> Twin:
    """The twin with Whisper's last norm, and trained blocks that begin as copies of Whisper's last one, adding nothing yet."""
    twin = Twin()
    weights = {name: torch.from_numpy(array) for name, array in whisper.read_encoder(whisper.default_file()).items()}
    last = f"blocks.{sizes.FROZEN_BLOCKS - 1}."
    for block in twin.audio.blocks.values():
        block.load_state_dict({name.removeprefix(last): array for name, array in weights.items() if name.startswith(last)})
        for linear in (block.attn.out, block.mlp[2]):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
    twin.audio.ln_post.load_state_dict({name: weights[f"ln_post.{name}"] for name in ("weight", "bias")})
    return twin


def settle(run: Training, feeder: Feeder, reader: Iterator[Reading]) -> None:
    """A checkpoint has no blank and no imagination: they are taught first, while the twin stays as it is."""
    nn.init.constant_(run.blank.bias, LIKELY_BLANK)
    optimiser = torch.optim.AdamW([*run.blank.parameters(), *run.imagination.parameters()], lr=5e-3, weight_decay=0.0)
    means = Means()
    for batch in islice(feeder.epoch(run.epoch), SETTLING):
        found = losses(run, batch, next(reader))
        optimiser.zero_grad()
        (found["ctc"] + found.get("imagining", 0.0)).backward()
        optimiser.step()
        means.add(found)
    print(f"settled: {means.shown()}", flush=True)


def one_epoch(run: Training, feeder: Feeder, reader: Iterator[Reading], arguments: argparse.Namespace) -> None:
    """One pass over the clips, or what is left of the steps."""
    means, seconds, began = Means(), 0.0, time.monotonic()
    for batch in feeder.epoch(run.epoch):
        # For one step alone: autocast keeps its rounded copies of the weights as long as it lasts.
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bfloat16):
            found = losses(run, batch, next(reader) if run.step % arguments.read_every == 0 else None)
        loss = torch.stack([WEIGHTS[name] * part for name, part in found.items()]).sum()
        run.learn(loss, arguments.rate * schedule(run.step, arguments.steps, WARM_UP), [run.twin])
        means.add(found)
        seconds += batch.positions.sum().item() / 50
        if run.step % REPORT_EVERY == 0:
            speed = seconds / (time.monotonic() - began)
            print(f"epoch {run.epoch} step {run.step}: {means.shown()}, {speed:.0f} x real time", flush=True)
            seconds, began = 0.0, time.monotonic()
        run.save_now_and_then(arguments.out)
        if run.step >= arguments.steps:
            return


def losses(run: Training, batch: Batch, reading: Reading | None) -> dict[str, Tensor]:
    """The losses of one step, by their names in WEIGHTS."""
    vectors = run.twin.audio(batch.features, batch.positions)
    scores = ctc_scores(run.twin, run.blank, vectors[batch.speech])
    hidden, listening = run.twin(batch.rows.ids, batch.rows.spans, vectors, batch.positions // 2)
    found = {
        "ctc": ctc_loss(scores, batch),
        "place": place_loss(run.twin, batch, vectors),
        "answer": answer_loss(run.twin, batch.rows, hidden),
        "listening": listening_loss(run.twin, batch.rows, listening),
    }
    return found | (reading_losses(run, reading, batch, vectors, scores) if reading else {})


def reading_losses(run: Training, reading: Reading, batch: Batch, vectors: Tensor, scores: Tensor) -> dict[str, Tensor]:
    """The decoder's two losses on imagined clips: the answer, and where to look; and the imagination's own. None where nobody speaks."""
    real, counts = vectors[batch.speech].detach(), batch.positions[batch.speech] // 2
    inside = torch.arange(real.shape[1]) < counts[:, None]
    if not inside.any():
        return {}
    said = scores.argmax(-1)
    told = run.imagination(torch.where(inside & (said < sizes.RANKS), said, SILENT))
    wrong = (real - told) * inside[..., None]
    with torch.no_grad():
        made = imagined(run.imagination, reading.tokens, wrong)
    hidden, listening = run.twin(reading.rows.ids, reading.rows.spans, made, reading.counts)
    return {
        "reading": answer_loss(run.twin, reading.rows, hidden),
        "following": listening_loss(run.twin, reading.rows, listening),
        "imagining": wrong.square().sum() / real[inside].square().sum(),
    }


def answer_loss(twin: Twin, rows: Rows, hidden: Tensor) -> Tensor:
    """Cross entropy per answer token, of times with TIME_BLUR."""
    asked = rows.targets >= 0
    targets = rows.targets[asked]
    scores = twin.logits(hidden[asked]).log_softmax(-1)
    loss = -scores.gather(1, targets[:, None])[:, 0]
    grid = time_rows()
    times = (targets >= grid[0]) & (targets <= grid[-1])
    loss[times] = blurred(scores[times][:, grid], (targets[times] - grid[0]) // (grid[1] - grid[0]))
    return loss.mean()


def time_rows() -> Tensor:
    """The ids of the times on the grid, from 0 to 30 s."""
    first, last, second = (sizes.RANKS + SPECIAL_TOKENS.index(timestamp_token(seconds)) for seconds in (0.0, 30.0, GRID))
    return torch.arange(first, last + 1, second - first)


def blurred(scores: Tensor, places: Tensor) -> Tensor:
    """Cross entropy [n] of log probabilities [n, times] with each place on the grid and its neighbours, as TIME_BLUR shares it out."""
    reach = len(TIME_BLUR) // 2
    near = places[:, None] + torch.arange(-reach, reach + 1)
    return -(scores.gather(1, near.clamp(0, scores.shape[1] - 1)) @ torch.tensor(TIME_BLUR))


def place_loss(twin: Twin, batch: Batch, vectors: Tensor) -> Tensor:
    """Cross entropy of each audio vector with its own time, read through the embeddings of the times."""
    clip, place = (torch.arange(vectors.shape[1]) < (batch.positions // 2)[:, None]).nonzero(as_tuple=True)
    scores = vectors[clip, place] @ twin.wte.weight[time_rows()].T
    return blurred(scores.log_softmax(-1), place).mean()


def listening_loss(twin: Twin, rows: Rows, listening: Tensor) -> Tensor:
    """- log of the listening head's share at the right vectors, per token that is heard somewhere; 0 where none is."""
    row, place = (rows.heard[..., 0] >= 0).nonzero(as_tuple=True)
    if not len(row):
        return listening.sum() * 0.0
    first, last = rows.heard[row, place, :, None].unbind(1)
    positions = torch.arange(listening.shape[1])
    looks = twin.looks(listening)[row, place].masked_fill((positions < first) | (positions > last), -math.inf)
    return -looks.logsumexp(-1).mean()


def ctc_loss(scores: Tensor, batch: Batch) -> Tensor:
    """CTC per spoken token, of the speaking clips' scores [clips, N, RANKS + 1]; 0 where nobody speaks."""
    if not batch.spoken:
        return scores.sum() * 0.0
    counts = torch.tensor([len(ids) for ids in batch.spoken])
    spoken = torch.tensor([id_ for ids in batch.spoken for id_ in ids])
    lengths = batch.positions[batch.speech] // 2
    return (
        F.ctc_loss(scores.transpose(0, 1), spoken, lengths, counts, blank=sizes.RANKS, reduction="sum", zero_infinity=True) / counts.sum()
    )


def ctc_scores(twin: Twin, blank: nn.Linear, vectors: Tensor) -> Tensor:
    """Audio vectors [..., hidden] -> log probabilities [..., RANKS + 1], the blank last."""
    return torch.cat([vectors @ twin.wte.weight[: sizes.RANKS].T, blank(vectors)], -1).log_softmax(-1)


if __name__ == "__main__":
    main()
