"""Notes and scenes for the encoder's first blocks: `python -m demo.first_blocks --data build/demo --start MODEL --minutes 20 OUT`.

Whisper's blocks lose a part of what tells notes apart: a small convolutional network that learned from what the convolutions make of
8,000 notes named the family of 95 % of the notes that training keeps for the test; from what two blocks make of them 93 %, four 85 %.
So the convolutions and the first BLOCKS blocks learn here, alone, what a note is and what kind of sound a scene is, read off the mean of
what they give (of a scene, its spread too) by layers that are thrown away; what they give of speech is held to what it was. A second
of sound takes a third of the whole encoder's time, and nothing of it is spent on words. The blocks behind them have yet to learn to
pass it on: `python -m demo.train --start OUT --out MARK`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from demo import export, sizes, sounds, words
from demo.augment import augment, covered
from demo.clip_store import RATE, TRANSCRIBED
from demo.curriculum import LOW, LOW_TIMES
from demo.examples import Entry
from demo.front_end import log_mel
from demo.hearing import cuts_of, heard, kept
from demo.kinds import KINDS
from demo.music import FAMILIES
from demo.notes import KEYS, played
from demo.padding import own_places
from demo.progress import Means, Run, schedule
from demo.sounds import Cut
from demo.twin import Twin, first_parts
from qwenaudio_np.audio import position_count

BLOCKS = 2  # that learn
NOTES, SCENES, SPEECH = 26, 10, 60 * RATE  # of a step: notes, scenes, and samples of speech (neighbours in length)
LONGEST = 3 * RATE  # samples of a scene, before it is played slower or faster
SPEEDS = (0.8, 1.25)  # how fast a scene is played
SHORT, SECONDS, LEAD = 0.8, (0.5, 1.2), 0.25  # share of the notes that are cut short, behind their attack; most silence before it
CHANGED = 0.2  # share of the notes that a room, a microphone or noise changes
WEIGHTS = {"note": 1.0, "scene": 1.5, "speech": 0.2, "moved": 300.0}
DROPPED = 0.2  # share of what a scene is read off
REPORT_EVERY = 50  # steps

Sound = tuple[Tensor, Tensor]  # mel [rows, 80, frames], and how many encoder positions of each row are real [rows]


@dataclass(frozen=True)
class Clips:
    """Rows of sound."""

    cuts: list[Cut]
    samples: list[int]  # how long each row is
    kept: list[bool]  # whether its loudness and sound must stay


class FirstBlocks(Run):
    """The twin, of which the first blocks learn; the twin as it was; the layers that read notes and kinds of sound."""

    def __init__(self, folder: Path) -> None:
        self.twin, self.before = Twin.from_checkpoint(folder), Twin.from_checkpoint(folder).requires_grad_(False)
        self.read = nn.Linear(sizes.STATE, 2 * KEYS + len(FAMILIES))
        self.tell = nn.Linear(2 * sizes.STATE, len(KINDS))
        for layer in (self.read, self.tell):
            nn.init.zeros_(layer.weight)
        for name, parameter in self.twin.named_parameters():
            parameter.requires_grad_(name.startswith(first_parts(BLOCKS)))
        parts = [parameter for parameter in self.twin.parameters() if parameter.requires_grad]
        layers = [*self.read.parameters(), *self.tell.parameters()]
        adam = torch.optim.AdamW([*parts, *layers], betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        super().__init__({"twin": self.twin, "read": self.read, "tell": self.tell, "adam": adam})

    def losses(self, notes: Sound, told: Tensor, scenes: Sound, kinds: Tensor, speech: Sound) -> dict[str, Tensor]:
        """What WEIGHTS are for: cross entropies of notes, told [notes, 3], of scenes' kinds [scenes], of speech; how far speech moved."""
        now, real = states_of(self.twin, speech)
        with torch.no_grad():
            was, _ = states_of(self.before, speech)
        return {
            "note": torch.stack([F.cross_entropy(part, told[:, k]) for k, part in enumerate(self.notes(notes))]).sum(),
            "scene": F.cross_entropy(self.kinds(*states_of(self.twin, scenes)), kinds),
            "speech": F.cross_entropy(self.kinds(now, real), torch.full((len(now),), KINDS.index("speech"))),
            "moved": (now - was)[real].square().sum() / was[real].square().sum(),
        }

    def notes(self, sound: Sound) -> tuple[Tensor, ...]:
        """Scores of each note's pitch [notes, KEYS], velocity and family."""
        mean, _ = mean_and_spread(*states_of(self.twin, sound))
        return self.read(mean).split([KEYS, KEYS, len(FAMILIES)], 1)

    def kinds(self, states: Tensor, inside: Tensor) -> Tensor:
        """Scores [rows, KINDS] of each row's kind of sound."""
        return self.tell(F.dropout(torch.cat(mean_and_spread(states, inside), 1), DROPPED))


def mean_and_spread(states: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [rows, state] of the normalised states [rows, T, state] that are `inside` [rows, T]."""
    normal, count = F.layer_norm(states, (sizes.STATE,)) * inside[..., None], inside.sum(1, keepdim=True)
    mean = normal.sum(1) / count
    square = ((normal - mean[:, None]) * inside[..., None]).square().sum(1) / count
    return mean, (square + 1e-4).sqrt()  # a constant, so that the slope stays finite where nothing moves


def states_of(twin: Twin, sound: Sound) -> tuple[Tensor, Tensor]:
    """What the first blocks make of mel and positions: [rows, T, state], and which of T are real."""
    mel, positions = sound
    with torch.autocast("cpu", torch.bfloat16):
        states = twin.audio.states(mel, positions, BLOCKS).float()
    return states, own_places(positions, states.shape[1])


def main() -> None:
    """Train until the minutes are over, and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--start", type=Path, required=True, help="an exported model to begin from")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long in all (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=6e-4, help="largest learning rate (default: %(default)s)")
    parser.add_argument("out", type=Path, help="folder of the model to write, made if it is missing")
    arguments = parser.parse_args()
    words.require(arguments.data, arguments.start)
    torch.manual_seed(1)  # of the layers that are thrown away
    torch.set_flush_denormal(True)  # as in train.py
    arguments.out.mkdir(parents=True, exist_ok=True)
    run, mark = FirstBlocks(arguments.start), arguments.out.with_name(arguments.out.name + ".pt")
    run.load(mark)
    entries, heard_ = sounds.labels(arguments.data), sounds.read(arguments.data, torch.device("cpu"))
    torch.manual_seed(1 + run.step)
    draw, means = Draw(entries, heard_, np.random.default_rng([17, run.step])), Means()
    while run.minutes < arguments.minutes:
        notes, told = draw.notes()
        scenes, kinds = draw.scenes()
        found = run.losses(spectrogram(heard_, notes), told, spectrogram(heard_, scenes), kinds, spectrogram(heard_, draw.speech()))
        loss = torch.stack([WEIGHTS[name] * part for name, part in found.items()]).sum()
        run.learn(loss, arguments.rate * schedule(run.minutes / arguments.minutes), [run.twin])
        means.add(found)
        if run.step % REPORT_EVERY == 0:
            print(f"{run.minutes:.2f} min, step {run.step}: {means.shown()}", flush=True)
        run.save_now_and_then(mark)
    run.save(mark)
    export.write(arguments.out, run.twin.state_dict(), arguments.data / words.FILE)


class Draw:
    """What a step hears: notes, most of them cut short behind their attack, scenes of each kind but speech, and speech."""

    def __init__(self, entries: list[Entry], heard_: Tensor, random: Generator) -> None:
        self.random = random
        self.played = [entry | {"attack": attack(heard_, entry)} for entry in entries if entry["kind"] == "note"]
        odds = np.array([LOW_TIMES if entry["pitch"] < LOW else 1.0 for entry in self.played])
        self.odds = odds / odds.sum()
        scenes = [entry for entry in entries if entry["kind"] == "scene" and entry["text"] != "speech"]
        self.sources = [[entry for entry in scenes if entry["source"] == name] for name in sorted({entry["source"] for entry in scenes})]
        self.spoken = sorted((entry for entry in entries if entry["kind"] in TRANSCRIBED), key=lambda entry: float(entry["samples"]))

    def notes(self) -> tuple[Clips, Tensor]:
        """NOTES of them, and each one's pitch, velocity and family's number [notes, 3]."""
        drawn = [self._short(self.played[k]) for k in self.random.choice(len(self.played), NOTES, p=self.odds)]
        rows = [heard([entry], 0, self.random) for entry in drawn]
        told = torch.tensor([played(row.entry) for row in rows])
        return Clips(cuts_of(rows), [row.samples for row in rows], [True] * len(rows)), told

    def _short(self, entry: Entry) -> Entry:
        if self.random.random() >= SHORT:
            return entry
        first = max(0, entry["attack"] - int(self.random.uniform(0.0, LEAD) * RATE))
        end = entry["attack"] + int(self.random.uniform(*SECONDS) * RATE)
        return entry | {"start": entry["start"] + first, "samples": min(entry["samples"], end) - first}

    def scenes(self) -> tuple[Clips, Tensor]:
        """SCENES of them, at most LONGEST each and as many of each source, and each one's number in KINDS [scenes]."""
        drawn = [source[self.random.integers(len(source))] for source in (self._source() for _ in range(SCENES))]
        cuts = []
        for row, entry in enumerate(drawn):
            count = min(entry["samples"], LONGEST)
            first = int(self.random.integers(entry["samples"] - count + 1))
            cuts.append(Cut(entry["start"] + first, count, 1.0 if kept(entry) else self.random.uniform(*SPEEDS), row, 0))
        told = torch.tensor([KINDS.index(entry["text"]) for entry in drawn])
        return Clips(cuts, [cut.length for cut in cuts], [kept(entry) for entry in drawn]), told

    def _source(self) -> list[Entry]:
        return self.sources[self.random.integers(len(self.sources))]

    def speech(self) -> Clips:
        """About SPEECH samples of clips that are about equally long, with silence around, at other speeds, without backgrounds."""
        first = int(self.random.integers(len(self.spoken)))
        count = max(1, int(SPEECH // self.spoken[first]["samples"]))
        rows = [heard([entry], 0, self.random) for entry in self.spoken[first : first + count]]
        return Clips(cuts_of(rows), [row.samples for row in rows], [False] * len(rows))


def attack(heard_: Tensor, entry: Entry) -> int:
    """The first sample of a clip that is louder than a 200th of its loudest, counted from the clip's start."""
    loudness = heard_[entry["start"] : entry["start"] + entry["samples"]].int().abs()
    return int((loudness >= loudness.max() / 200).int().argmax())


@torch.no_grad()
def spectrogram(heard_: Tensor, clips: Clips) -> Sound:
    """mel [rows, 80, frames] and positions [rows]; what need not be kept goes through augment.py, of the rest a share."""
    samples, same = torch.tensor(clips.samples), torch.tensor(clips.kept)
    positions = torch.tensor([position_count(count) for count in clips.samples])
    waves = sounds.rows(heard_, clips.cuts, (len(samples), max(clips.samples)))
    changed = ~same | (torch.rand(len(samples)) < CHANGED)
    if changed.any():
        waves[changed] = augment(waves[changed], samples[changed], same[changed])
    return covered(log_mel(waves, 2 * positions), 2 * positions, same), positions


if __name__ == "__main__":
    main()
