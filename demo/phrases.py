"""Little random pieces of music for several instruments, as notes for the synthesiser."""

from __future__ import annotations

import random
from typing import NamedTuple

from demo.synthesiser import DRUMS, FONTS, Note, Program

MELODY, CHORDS, BASS = 0, 1, 2  # channels
# General MIDI programs, counted from 0: (training, test).
PROGRAMS = {
    MELODY: (
        (0, 4, 6, 11, 12, 22, 24, 26, 40, 46, 52, 56, 60, 65, 68, 71, 73, 75, 80, 81, 105),
        (2, 7, 13, 27, 41, 59, 66, 69, 74, 84, 107),
    ),
    CHORDS: ((0, 4, 16, 19, 24, 28, 30, 48, 50, 52, 61, 89), (1, 5, 18, 27, 49, 51, 62, 90)),
    BASS: ((32, 33, 34, 38), (35, 36, 39)),
}
# Which parts play together; a whole band most often.
STYLES = (
    (MELODY, CHORDS, BASS, DRUMS),
    (MELODY, CHORDS, BASS, DRUMS),
    (MELODY, CHORDS, BASS),
    (MELODY, CHORDS),
    (CHORDS, BASS, DRUMS),
    (CHORDS,),
    (MELODY,),
    (DRUMS,),
)
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))  # major, minor
PROGRESSIONS = ((0, 5, 3, 4), (0, 3, 4, 0), (0, 4, 5, 3), (5, 3, 0, 4), (0, 2, 3, 4), (1, 4, 0, 0))  # degrees of the scale, one a bar
BEATS = 4  # in a bar
KICK, SNARE, CLOSED_HAT, OPEN_HAT = 36, 38, 42, 46


class Phrase(NamedTuple):
    """Which channel has which sound, and what is played."""

    programs: dict[int, Program]
    notes: list[Note]


class _Song(NamedTuple):
    draw: random.Random
    beat: float  # seconds
    root: int  # MIDI number of the tonic, 48 to 59
    scale: tuple[int, ...]
    chords: tuple[int, ...]  # degrees, one a bar

    def key(self, degree: int) -> int:
        """MIDI number of a degree of the scale; the degrees go on above and below the octave."""
        octave, step = divmod(degree, len(self.scale))
        return self.root + 12 * octave + self.scale[step]


def phrase(draw: random.Random, seconds: float, *, test: bool) -> Phrase:
    """Music that goes on for at least `seconds`; no program of the test is in a training piece, but for the drums.

    Some of these play single notes for training (music.py).
    """
    song = _Song(draw, 60 / draw.uniform(60, 180), draw.randrange(48, 60), draw.choice(SCALES), draw.choice(PROGRESSIONS))
    parts = draw.choice(STYLES)
    font = draw.randrange(len(FONTS))
    programs = {part: Program(font, 0 if part == DRUMS else draw.choice(PROGRAMS[part][test])) for part in parts}
    bars = int(seconds / (BEATS * song.beat)) + 1
    makers = {MELODY: _melody, CHORDS: _chords, BASS: _bass, DRUMS: _drums}
    return Phrase(programs, [note for part in parts for bar in range(bars) for note in makers[part](song, bar)])


def _melody(song: _Song, bar: int) -> list[Note]:
    """Steps and small leaps over the bar's chord, now and then a rest."""
    notes, at, degree = [], 0.0, song.chords[bar % len(song.chords)] + 7 + song.draw.choice((0, 2, 4))
    while at < BEATS:
        length = min(song.draw.choice((0.5, 0.5, 1, 1, 1.5, 2)), BEATS - at)
        if song.draw.random() < 0.85:
            start = (bar * BEATS + at) * song.beat
            notes.append(Note(start, start + 0.95 * length * song.beat, song.key(degree), song.draw.randint(70, 120), MELODY))
        degree += song.draw.choice((-2, -1, -1, 0, 1, 1, 2))
        at += length
    return notes


def _chords(song: _Song, bar: int) -> list[Note]:
    """The bar's triad: held, struck every beat, or broken into single notes."""
    degree = song.chords[bar % len(song.chords)]
    keys = [song.key(degree + third) for third in (0, 2, 4)]
    pattern = ("held", "struck", "broken")[int(song.beat * 1000) % 3]  # one pattern for the whole song
    if pattern == "broken":
        beats = [(step / 2, 0.5, [keys[(0, 1, 2, 1)[step % 4]]]) for step in range(2 * BEATS)]
    elif pattern == "struck":
        beats = [(float(step), 0.8, keys) for step in range(BEATS)]
    else:
        beats = [(0.0, 0.97 * BEATS, keys)]
    start = bar * BEATS
    return [
        Note((start + at) * song.beat, (start + at + length) * song.beat, key, song.draw.randint(55, 90), CHORDS)
        for at, length, sounding in beats
        for key in sounding
    ]


def _bass(song: _Song, bar: int) -> list[Note]:
    """The chord's root, two octaves down at the most, on every beat or every second one."""
    key = song.key(song.chords[bar % len(song.chords)]) - 12
    every = song.draw.choice((1, 2))
    return [
        Note((bar * BEATS + at) * song.beat, (bar * BEATS + at + 0.9 * every) * song.beat, key, song.draw.randint(80, 110), BASS)
        for at in range(0, BEATS, every)
    ]


def _drums(song: _Song, bar: int) -> list[Note]:
    """Kick on one and three, snare on two and four, hats on the eighths, with a few extra strokes."""
    strokes = [(0.0, KICK), (1.0, SNARE), (2.0, KICK), (3.0, SNARE)]
    strokes += [(step / 2, OPEN_HAT if song.draw.random() < 0.1 else CLOSED_HAT) for step in range(2 * BEATS)]
    strokes += [(step / 4, song.draw.choice((KICK, SNARE))) for step in range(4 * BEATS) if song.draw.random() < 0.08]
    return [
        Note((bar * BEATS + at) * song.beat, (bar * BEATS + at + 0.2) * song.beat, key, song.draw.randint(60, 120), DRUMS)
        for at, key in strokes
    ]
