"""Train the twin: `python -m demo.train --data build/demo --out build/demo/twin.pt --steps 20000`.

Two losses: the answer's next token (cross entropy), and CTC (Graves et al. 2006) of the transcript over the audio vectors. CTC reads the
vectors through the word embeddings themselves, so that sound comes to lie where the words lie, and the decoder need only learn to
copy; only the score of its blank is thrown away afterwards. Stopped and started again, training goes on from the last minute's
mark; `--steps` may be changed then.
"""

from __future__ import annotations

import argparse
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo import sizes, whisper, words
from demo.batches import Batch, Feeder
from demo.examples import GRID
from demo.twin import Twin
from qwenaudio_np.special_tokens import SPECIAL_TOKENS, timestamp_token

CTC_WEIGHT = 0.6
TIME_BLUR = (0.06, 0.24, 0.4, 0.24, 0.06)  # what a time is taught as: itself and its neighbours on the grid, so that near is not wrong
WARM_UP = 150  # steps
SAVE_EVERY = 60.0  # seconds
REPORT_EVERY = 50  # steps


@dataclass
class Run:
    """Everything that has to survive a stop."""

    twin: Twin
    blank: nn.Linear  # CTC's score for "no token ends here", hidden -> 1
    optimiser: torch.optim.Optimizer
    step: int = 0
    epoch: int = 0

    def save(self, path: Path) -> None:
        """Written whole or not at all."""
        state = {"twin": self.twin.state_dict(), "blank": self.blank.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(state | {"step": self.step, "epoch": self.epoch}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path: Path) -> None:
        """Back to the last save."""
        state = torch.load(path, weights_only=True)
        for name in ("twin", "blank", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.epoch = state["step"], state["epoch"] + 1  # the rest of that epoch is left out: a new order begins


def main() -> None:
    """Train until `--steps`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--out", type=Path, default=Path("build/demo/twin.pt"))
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--rate", type=float, default=1.2e-3, help="largest learning rate")
    parser.add_argument("--budget", type=int, default=4800, help="positions of a batch")
    parser.add_argument("--answer-every", type=int, default=1, help="steps of which one has both losses, the others CTC alone")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    run = new_run()
    if arguments.out.exists():
        run.load(arguments.out)
    feeder = Feeder(arguments.data, words.load(arguments.data), arguments.budget)
    with suppress(KeyboardInterrupt):
        while run.step < arguments.steps:
            one_epoch(run, feeder, arguments)
            run.epoch += 1
    run.save(arguments.out)


def new_run() -> Run:
    """The twin with Whisper's last norm, and trained blocks that begin as copies of Whisper's last one, adding nothing yet."""
    twin, blank = Twin(), nn.Linear(sizes.HIDDEN, 1)
    weights = {name: torch.from_numpy(array) for name, array in whisper.read_encoder(whisper.default_file()).items()}
    last = f"blocks.{sizes.FROZEN_BLOCKS - 1}."
    for block in twin.audio.blocks.values():
        block.load_state_dict({name.removeprefix(last): array for name, array in weights.items() if name.startswith(last)})
        for linear in (block.attn.out, block.mlp[2]):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
    twin.audio.ln_post.load_state_dict({name: weights[f"ln_post.{name}"] for name in ("weight", "bias")})
    return Run(twin, blank, torch.optim.AdamW([*twin.parameters(), *blank.parameters()], betas=(0.9, 0.98), weight_decay=0.05))


def one_epoch(run: Run, feeder: Feeder, arguments: argparse.Namespace) -> None:
    """One pass over the clips, or what is left of the steps."""
    saved = began = time.monotonic()
    sums, seconds = torch.zeros(2), 0.0  # since the last report
    for batch in feeder.epoch(run.epoch):
        for group in run.optimiser.param_groups:
            group["lr"] = arguments.rate * schedule(run.step, arguments.steps)
        vectors = run.twin.audio(batch.features, batch.positions)
        heard = ctc_loss(run.twin, run.blank, batch, vectors)
        answered = answer_loss(run.twin, batch, vectors) if run.step % arguments.answer_every == 0 else torch.zeros(())
        run.optimiser.zero_grad()
        (answered + CTC_WEIGHT * heard).backward()
        nn.utils.clip_grad_norm_(run.twin.parameters(), 1.0)
        run.optimiser.step()
        run.step += 1
        seconds += batch.positions.sum().item() / 50
        sums += torch.stack([answered * arguments.answer_every, heard]).detach()
        if run.step % REPORT_EVERY == 0:
            speed = seconds / (time.monotonic() - began)
            answer, ctc = (sums / REPORT_EVERY).tolist()
            print(f"epoch {run.epoch} step {run.step}: answer {answer:.3f}, ctc {ctc:.3f}, {speed:.0f} x real time", flush=True)
            began, sums, seconds = time.monotonic(), torch.zeros(2), 0.0
        if time.monotonic() - saved > SAVE_EVERY:
            run.save(arguments.out)
            saved = time.monotonic()
        if run.step >= arguments.steps:
            return


def schedule(step: int, steps: int) -> float:
    """The learning rate's share: up over WARM_UP steps, then down a cosine to 1 %."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def answer_loss(twin: Twin, batch: Batch, vectors: Tensor) -> Tensor:
    """Cross entropy per answer token, of times with TIME_BLUR."""
    hidden = twin(batch.ids, batch.clips, batch.spans, vectors, batch.positions)
    asked = batch.targets >= 0
    targets = batch.targets[asked]
    scores = twin.logits(hidden[asked]).log_softmax(-1)
    loss = -scores.gather(1, targets[:, None])[:, 0]
    first, last, step = (sizes.RANKS + SPECIAL_TOKENS.index(timestamp_token(seconds)) for seconds in (0.0, 30.0, GRID))
    times = (targets >= first) & (targets <= last)
    reach = len(TIME_BLUR) // 2
    near = targets[times, None] + (step - first) * torch.arange(-reach, reach + 1)
    loss[times] = -(scores[times].gather(1, near.clamp(first, last)) @ torch.tensor(TIME_BLUR))
    return loss.mean()


def ctc_loss(twin: Twin, blank: nn.Linear, batch: Batch, vectors: Tensor) -> Tensor:
    """CTC per spoken token; 0 where nobody speaks."""
    if not batch.spoken:
        return vectors.sum() * 0.0
    heard = vectors[batch.speech]
    frames = ctc_scores(twin, blank, heard).transpose(0, 1)
    counts = torch.tensor([len(ids) for ids in batch.spoken])
    spoken = torch.tensor([id_ for ids in batch.spoken for id_ in ids])
    lengths = batch.positions[batch.speech] // 2
    return F.ctc_loss(frames, spoken, lengths, counts, blank=sizes.RANKS, reduction="sum", zero_infinity=True) / counts.sum()


def ctc_scores(twin: Twin, blank: nn.Linear, vectors: Tensor) -> Tensor:
    """Audio vectors [..., hidden] -> log probabilities [..., RANKS + 1], the blank last."""
    return torch.cat([vectors @ twin.wte.weight[: sizes.RANKS].T, blank(vectors)], -1).log_softmax(-1)


if __name__ == "__main__":
    main()
