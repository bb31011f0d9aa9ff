"""How a clip is heard in a step: after how much silence, how fast, cut how close, and followed by what. Each time it is drawn anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.assemble import times_within
from demo.clip_store import RATE
from demo.examples import Entry
from demo.sounds import Cut, seconds_of
from qwenaudio_np.audio import position_count

TIGHT, LEFT = 0.35, 0.05  # how often words are cut close to their sound, and the most seconds of silence that are left then
JOINED = {"read": 0.12, "words": 0.25, "heard": 0.25}  # how often clips of a kind come with those that follow them
MOST_JOINED = 4
LONGEST = 29 * RATE  # samples
PARTS = {"noise": (1.8, 5.0), "music": (1.8, 5.0)}  # seconds of a longer scene that are heard, from anywhere in it
OTHER_SPEED, SPEEDS = 0.6, (0.86, 1.18)  # how often speech is played faster or slower, and how much
SCENE_SPEEDS = (0.75, 1.33)  # the same of noises and music: a motor or a drone at another speed is another motor, or another drone
# How often a note is moved, by how many keys at most, and by what part of one beside. So a key that music.py keeps from training (for
# one program in ten keys) is not played in training, but the sound of its neighbours is heard there.
MOVED, FARTHEST, OUT_OF_TUNE = 0.6, 2, 0.2


@dataclass(frozen=True)
class Heard:
    """A row's label and where its sound comes from; the cuts' rows are not known yet."""

    entry: Entry
    cuts: list[Cut]
    samples: int

    @property
    def vectors(self) -> int:
        """Audio vectors of the row."""
        return position_count(self.samples) // 2


def heard(entries: list[Entry], index: int, random: np.random.Generator) -> Heard:
    """Clip `index` as it is heard this time: after how much silence, how fast, and followed by what."""
    entry = entries[index]
    speed, lead, trail, joined = 1.0, 0.0, 0.0, 1
    if "silences" in entry and random.random() < TIGHT:
        entry = tight(entry, random)
    elif not kept(entry):
        lead, trail = random.uniform(0.0, 0.6, 2) * (random.random(2) < 0.6)
    if entry["kind"] in JOINED:
        speed = other_speed(SPEEDS, random)
        joined = int(random.integers(2, MOST_JOINED + 1)) if random.random() < JOINED[entry["kind"]] else 1
    if entry["kind"] == "note" and random.random() < MOVED:
        keys = int(random.integers(-FARTHEST, FARTHEST + 1))
        speed = 2.0 ** ((keys + random.uniform(-OUT_OF_TUNE, OUT_OF_TUNE)) / 12)
        entry = entry | {"pitch": entry["pitch"] + keys}
    if entry["kind"] == "scene" and entry["text"] in PARTS:
        speed = other_speed(SCENE_SPEEDS, random)
        count = min(round(random.uniform(*PARTS[entry["text"]]) * RATE), entry["samples"])
        entry = entry | {"start": entry["start"] + int(random.integers(entry["samples"] - count + 1)), "samples": count}
    now = round(lead * RATE)
    cuts: list[Cut] = []
    parts: list[Entry] = []
    for other in [entry, *entries[index + 1 : index + joined]]:
        cut = Cut(other["start"], other["samples"], speed, 0, now)
        if parts and (other["source"] != entry["source"] or now + cut.length > LONGEST):
            break
        cuts.append(cut)
        parts.append(other)
        now += cut.length + round(random.uniform(0.1, 0.9) * RATE) * (joined > 1)
    end = cuts[-1].at + cuts[-1].length + round(trail * RATE)
    words = [word for part, cut in zip(parts, cuts, strict=True) for word in seconds_of(cut, part["words"] or [])]
    timed = all(part["words"] for part in parts)
    return Heard(entry | {"text": " ".join(part["text"] for part in parts), "words": words if timed else None}, cuts, end)


def tight(entry: Entry, random: np.random.Generator) -> Entry:
    """Words with at most LEFT of the silence before and behind them: so people cut recordings of single words."""
    before, behind = (max(0, silent - round(random.uniform(0.0, LEFT) * RATE)) for silent in entry["silences"])
    count = entry["samples"] - before - behind
    words = entry["words"] and times_within(entry["words"], before / RATE, count / RATE)
    return entry | {"start": entry["start"] + before, "samples": count, "words": words}


def other_speed(speeds: tuple[float, float], random: np.random.Generator) -> float:
    """Another speed in so many cases as OTHER_SPEED says, else 1."""
    return float(random.uniform(*speeds)) if random.random() < OTHER_SPEED else 1.0


def cuts_of(rows: list[Heard]) -> list[Cut]:
    """Where all rows' sound comes from, each cut with the number of its row."""
    return [Cut(cut.start, cut.count, cut.speed, number, cut.at) for number, row in enumerate(rows) for cut in row.cuts]


def kept(entry: Entry) -> bool:
    """Whether nothing may be done to a clip that changes what it is called: a note's velocity is how loud it is."""
    return entry["kind"] == "note" or (entry["kind"] == "scene" and entry["text"] == "silence")
