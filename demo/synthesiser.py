"""Notes to sound: FluidSynth's library, driven sample by sample, so that every clip begins from silence.

Needs Debian's `libfluidsynth3`, `fluid-soundfont-gm` and `timgm6mb-soundfont`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr

from demo.clip_store import RATE

FONTS = (Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"), Path("/usr/share/sounds/sf2/TimGM6mb.sf2"))
# Fonts are sampled for 44.1 kHz; played at 16 kHz directly, high notes would alias. So: 44.1 kHz, then a proper resampler.
SYNTH_RATE = 44100
DRUMS = 9  # the channel of General MIDI on which keys are drums
DRUM_BANK = 128


class Note(NamedTuple):
    """A key held from `start` to `end` (seconds)."""

    start: float
    end: float
    key: int
    velocity: int
    channel: int = 0


class Event(NamedTuple):
    """At this sample a key goes down (velocity 1 to 127) or up (0)."""

    sample: int
    velocity: int
    channel: int
    key: int


class Program(NamedTuple):
    """A sound: which of FONTS, and its General MIDI program counted from 0."""

    font: int
    number: int


def timeline(notes: Iterable[Note], rate: int) -> list[Event]:
    """What happens when, in order. At the same sample keys go up before they go down, so that a repeated note sounds again."""
    downs = [Event(round(note.start * rate), note.velocity, note.channel, note.key) for note in notes]
    ups = [Event(round(note.end * rate), 0, note.channel, note.key) for note in notes]
    return sorted(downs + ups)


class Synthesiser:
    """One FluidSynth with both fonts loaded. `room` switches its reverberation and chorus on.

    Raises OSError, with what to install, if the library or a font is not there.
    """

    def __init__(self, *, gain: float, room: bool) -> None:
        name = ctypes.util.find_library("fluidsynth")
        if name is None:
            raise OSError("FluidSynth's library was not found; install it (Debian: apt-get install libfluidsynth3)")
        self._library = ctypes.CDLL(name)
        self._library.new_fluid_settings.restype = ctypes.c_void_p
        self._library.new_fluid_synth.restype = ctypes.c_void_p
        settings = ctypes.c_void_p(self._library.new_fluid_settings())
        for setting, number in (("synth.sample-rate", SYNTH_RATE), ("synth.gain", gain)):
            self._library.fluid_settings_setnum(settings, setting.encode(), ctypes.c_double(number))
        for setting in ("synth.reverb.active", "synth.chorus.active"):
            self._library.fluid_settings_setint(settings, setting.encode(), int(room))
        self._synth = ctypes.c_void_p(self._library.new_fluid_synth(settings))
        self._fonts = [self._load(path) for path in FONTS]

    def _load(self, path: Path) -> int:
        font: int = self._library.fluid_synth_sfload(self._synth, str(path).encode(), 0)
        if font < 0:
            raise OSError(f"{path}: not a sound font; install it (Debian: apt-get install fluid-soundfont-gm timgm6mb-soundfont)")
        return font

    def play(self, programs: Mapping[int, Program], notes: Iterable[Note], seconds: float) -> np.ndarray:
        """The notes as sound, [seconds * 16000] float64, each channel with its program; what still sounds at the end is cut."""
        self._library.fluid_synth_system_reset(self._synth)
        for channel, program in programs.items():
            bank = DRUM_BANK if channel == DRUMS else 0
            self._library.fluid_synth_program_select(self._synth, channel, self._fonts[program.font], bank, program.number)
        # FluidSynth works in blocks of 64 samples: a key may sound up to 1.5 ms late.
        end = round(seconds * SYNTH_RATE)
        blocks, now = [], 0
        for event in timeline(notes, SYNTH_RATE):
            sample = min(event.sample, end)
            blocks.append(self._samples(sample - now))
            now = sample
            if event.velocity:
                self._library.fluid_synth_noteon(self._synth, event.channel, event.key, event.velocity)
            else:
                self._library.fluid_synth_noteoff(self._synth, event.channel, event.key)
        blocks.append(self._samples(end - now))
        sound = soxr.resample(np.concatenate(blocks), SYNTH_RATE, RATE)
        samples = np.zeros(round(seconds * RATE))
        # The resampler may round its length to a sample more or less.
        samples[: len(sound)] = sound[: len(samples)]
        return samples

    def _samples(self, count: int) -> np.ndarray:
        """The next `count` samples: the mean of left and right, float64."""
        left, right = np.zeros((2, count), np.float32)
        pointers = [channel.ctypes.data_as(ctypes.c_void_p) for channel in (left, right)]
        self._library.fluid_synth_write_float(self._synth, count, pointers[0], 0, 1, pointers[1], 0, 1)
        return (left.astype(np.float64) + right) / 2
