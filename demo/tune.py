"""Teach Whisper's blocks to keep the pitch of a note: `python -m demo.tune --data build/demo`, before demo.features.

Whisper was trained to write words, and forgets pitch on the way up: a linear probe finds 80 % of held-out pitches in what its
convolutions put out, 45 % in what its fourth block does. So the blocks are trained a little, on two things at once: a linear head must
read pitch, velocity and instrument from the mean over a note, and for speech and other sounds every number must stay what it was.
Stopped and started again, it goes on from the last minute's mark. Result: encoder.pt in the data folder.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo import sizes
from demo.clip_store import RATE, read_labels
from demo.features import ENCODER, clip, log_mel, whisper_encoder
from demo.music import FAMILIES, VELOCITIES
from demo.progress import Means, Run, schedule
from demo.twin import Frozen

NOTE_SECONDS = (0.5, 0.6, 0.8, 1.2, 2.0)  # of one step's notes; none is over before
SOUND_SECONDS = (1.5, 3.0, 5.0)
NOTE_POSITIONS, SOUND_POSITIONS = 1500, 800  # of one step
LATEST_START = 0.5  # seconds into the clip; the note itself begins within 0.4 s and is held for 0.8 s at least
SOUNDS = ("read", "words", "scene")  # kinds of clips whose numbers must stay
WARM_UP = 50  # steps
REPORT_EVERY = 25  # steps
WEIGHTS = {"pitch": 1.0, "instrument": 0.3, "velocity": 0.2, "moved": 8.0}
CLASSES = {"pitch": 128, "instrument": len(FAMILIES), "velocity": len(VELOCITIES)}


class Tuned(nn.Module):
    """The encoder being trained, and the heads that read it; they are thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = whisper_encoder()
        self.norm = nn.LayerNorm(sizes.STATE)
        self.heads = nn.ModuleDict({part: nn.Linear(sizes.STATE, count) for part, count in CLASSES.items()})

    def forward(self, mel: Tensor) -> dict[str, Tensor]:
        """mel [notes, 80, 2T] -> the scores of each part's classes, [notes, classes]."""
        heard = self.norm(self.encoder.stream(mel)).mean(1)
        return {part: head(heard) for part, head in self.heads.items()}


class Clips:
    """Random cuts of the training clips, as features.py would augment them."""

    def __init__(self, data: Path, kinds: tuple[str, ...], seed: int) -> None:
        self.data, self.random = data, np.random.default_rng([11, seed])
        self.labels = {path.stem: read_labels(path) for path in sorted((data / "clips").glob("*.jsonl"))}
        self.found = [
            (source, index)
            for source, labels in self.labels.items()
            for index, entry in enumerate(labels)
            if entry["split"] == "train" and entry["kind"] in kinds
        ]

    def draw(self, count: int, seconds: float, latest: float) -> tuple[list[dict[str, object]], Tensor]:
        """`count` entries and their cuts' log mel [count, 80, frames]; a cut starts within `latest` seconds, what is missing is silence."""
        entries, mels = [], []
        for _ in range(count):
            source, index = self.found[self.random.integers(len(self.found))]
            entry, wave = clip(self.data, source, self.labels[source], index)
            start = int(self.random.uniform(0, max(0, min(latest * RATE, len(wave) - seconds * RATE))))
            wave = wave[start : start + round(seconds * RATE)]
            entries.append(entry)
            mels.append(log_mel(np.pad(wave, (0, round(seconds * RATE) - len(wave)))))
        return entries, torch.stack(mels)


def main() -> None:
    """Train until `--steps`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--rate", type=float, default=3e-4, help="largest learning rate")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    with suppress(KeyboardInterrupt):
        tune(arguments)


def tune(arguments: argparse.Namespace) -> None:
    """The loop."""
    tuned, path = Tuned(), arguments.data / ENCODER
    run = Run({"tuned": tuned, "optimiser": torch.optim.AdamW(tuned.parameters(), betas=(0.9, 0.98), weight_decay=0.0)})
    run.load(path)
    before = whisper_encoder().eval().requires_grad_(False)
    notes, sounds = Clips(arguments.data, ("note",), run.step), Clips(arguments.data, SOUNDS, run.step)
    spread, means = stream_spread(before, sounds), Means()
    while run.step < arguments.steps:
        found = note_losses(tuned, notes) | {"moved": moved(tuned.encoder, before, sounds, spread)}
        loss = torch.stack([weight * found[name] for name, weight in WEIGHTS.items()]).sum()
        run.learn(loss, arguments.rate * schedule(run.step, arguments.steps, WARM_UP), [tuned])
        means.add(found)
        if run.step % REPORT_EVERY == 0:
            print(f"step {run.step}: {means.shown()}", flush=True)
        run.save_now_and_then(path)
    run.save(path)


def note_losses(tuned: Tuned, notes: Clips) -> dict[str, Tensor]:
    """Cross entropy of each part over one step's notes, and the share of right pitches."""
    seconds = float(notes.random.choice(NOTE_SECONDS))
    entries, mel = notes.draw(round(NOTE_POSITIONS / (50 * seconds)), seconds, LATEST_START)
    right = {
        "pitch": torch.tensor([entry["pitch"] for entry in entries]),
        "instrument": torch.tensor([list(FAMILIES).index(str(entry["instrument"])) for entry in entries]),
        "velocity": torch.tensor([VELOCITIES.index(int(str(entry["velocity"]))) for entry in entries]),
    }
    scores = tuned(mel)
    losses = {part: F.cross_entropy(scores[part], right[part]) for part in CLASSES}
    return losses | {"right pitches": (scores["pitch"].argmax(-1) == right["pitch"]).float().mean()}


def moved(encoder: Frozen, before: Frozen, sounds: Clips, spread: Tensor) -> Tensor:
    """Mean square of how far the stream is from what it was, in units of each column's own spread."""
    seconds = float(sounds.random.choice(SOUND_SECONDS))
    _, mel = sounds.draw(round(SOUND_POSITIONS / (50 * seconds)), seconds, 30.0)
    with torch.no_grad():
        stayed = before.stream(mel)
    return (((encoder.stream(mel) - stayed) / spread) ** 2).mean()


@torch.no_grad()
def stream_spread(before: Frozen, sounds: Clips) -> Tensor:
    """[state]: standard deviation of each column of the stream over some clips."""
    _, mel = sounds.draw(32, 3.0, 30.0)
    return before.stream(mel).flatten(0, 1).std(0)


if __name__ == "__main__":
    main()
