"""Single notes of eleven families of instruments, played by a sampled synthesiser: `python -m demo.music --data build/demo`.

Source `notes` is for training. Source `notes_test` has two parts: `unseen_pitch`, pairs of program and pitch that are never in
training, and `held_out_program`, one program of each family that is never in training at any pitch.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from demo.clip_store import RATE, ClipStore, data_argument
from demo.synthesiser import FONTS, Note, Program, Synthesiser

TRAIN_CLIPS, TEST_CLIPS = 24000, 400
VELOCITIES = (25, 50, 75, 100, 127)
# Loudness tells the velocity, so all clips share one gain: the loudest program at velocity 127 stays below full scale.
GAIN = 1.3


class Family(NamedTuple):
    """Programs (General MIDI, counted from 0) that play in tune between two pitches (MIDI numbers) in both fonts."""

    lowest: int
    highest: int
    programs: tuple[int, ...]
    held_out: int  # the program that training never hears


# The families of NSynth. Left out: programs whose sound is not at the pitch of the key, or silent in a part of the range (celesta,
# glockenspiel, harp, tuba, baritone saxophone, sitar, fifths ...).
FAMILIES = {
    "bass": Family(36, 60, (32, 33, 34, 36, 37, 38), 35),
    "brass": Family(43, 79, (56, 57, 60, 61, 62, 63), 59),
    "flute": Family(60, 84, (72, 73, 75, 79), 74),
    "guitar": Family(40, 76, (24, 26, 28, 29, 30), 27),
    "keyboard": Family(36, 84, (0, 1, 4, 5, 6, 7), 2),
    "mallet": Family(53, 84, (11, 12, 108, 114), 13),
    "organ": Family(36, 84, (17, 19, 20, 21), 18),
    "reed": Family(46, 77, (65, 66, 68, 70, 71), 69),
    "string": Family(43, 79, (40, 42, 44, 45, 48), 41),
    "synth_lead": Family(48, 84, (80, 81, 83, 87), 84),
    "vocal": Family(55, 79, (52, 53, 85), 54),
}

# Drawbar organs pull a 16-foot stop: they sound an octave below the key. The key an octave above the pitch is pressed instead.
KEY_ABOVE_PITCH = {17: 12, 18: 12}


class NoteClip(NamedTuple):
    """One note to be played, and what the model should say about it."""

    family: str
    pitch: int
    program: Program
    note: Note
    seconds: float
    part: str


def kept_for_test(program: int, pitch: int) -> bool:
    """Whether this pair is kept from training: every tenth pitch of a program, starting elsewhere for each."""
    return (7 * program + pitch) % 10 == 0


def training_clip(index: int) -> NoteClip:
    """Clip `index` of the source `notes`."""
    draw = random.Random(f"notes/{index}")
    name, family = list(FAMILIES.items())[index % len(FAMILIES)]
    program = draw.choice(family.programs)
    pitch = draw.choice([pitch for pitch in range(family.lowest, family.highest + 1) if not kept_for_test(program, pitch)])
    return _clip(draw, name, program, pitch, "train")


def held_out_clip(index: int) -> NoteClip:
    """Clip `index` of the source `notes_test`: the two parts in turn."""
    draw = random.Random(f"notes_test/{index}")
    name, family = list(FAMILIES.items())[index // 2 % len(FAMILIES)]
    pitches = range(family.lowest, family.highest + 1)
    if index % 2:
        return _clip(draw, name, family.held_out, draw.choice(pitches), "held_out_program")
    program = draw.choice(family.programs)
    return _clip(draw, name, program, draw.choice([pitch for pitch in pitches if kept_for_test(program, pitch)]), "unseen_pitch")


def _clip(draw: random.Random, family: str, program: int, pitch: int, part: str) -> NoteClip:
    start, held = draw.uniform(0, 0.4), draw.uniform(0.8, 2.2)
    seconds = min(max(start + held + draw.uniform(0.1, 0.6), 1.5), 3.0)
    note = Note(start, start + held, pitch + KEY_ABOVE_PITCH.get(program, 0), draw.choice(VELOCITIES))
    return NoteClip(family, pitch, Program(draw.randrange(len(FONTS)), program), note, round(seconds * RATE) / RATE, part)


def write_clips(data: Path, source: str, count: int) -> None:
    """Play the missing clips of `notes` or `notes_test`."""
    store, synthesiser = ClipStore(data, source), Synthesiser(gain=GAIN, room=False)
    for index in store.missing(count):
        clip = training_clip(index) if source == "notes" else held_out_clip(index)
        samples = synthesiser.play({0: clip.program}, [clip.note], clip.seconds)
        labels = {"pitch": clip.pitch, "velocity": clip.note.velocity, "instrument": clip.family, "part": clip.part}
        voice = f"{FONTS[clip.program.font].stem} program {clip.program.number}"
        split = "train" if source == "notes" else "test"
        store.write(index, samples, kind="note", text=clip.family, voice=voice, split=split, **labels)


def main() -> None:
    """Write both sources."""
    data = data_argument(__doc__)
    write_clips(data, "notes", TRAIN_CLIPS)
    write_clips(data, "notes_test", TEST_CLIPS)


if __name__ == "__main__":
    main()
