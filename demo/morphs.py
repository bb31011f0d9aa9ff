"""More voices out of one: hibari's "heart" with another pitch, another length of the throat, another accent.

The package's network tells what a vocoder needs: for each 12.5 ms the pitch, and spectra of what the voice, the breath and the mouth
add. Between the two, pitch and spectra can be moved apart from each other, and apart from the pace: a man or a child says the line,
flat or lively, dull or bright. A recording that is only played faster moves all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from demo.voices import RATE, Speech

HEART_PITCH = 200.0  # Hz, about the voice's own
VOICED = 40.0  # Hz; a frame with a lower pitch has none
Parts = list[npt.NDArray[np.float32]]  # spectra [601, frames] of harmonics, their phases, noise, the rest, its phases; pitch [frames]


@dataclass(frozen=True)
class Speaker:
    """How one speaker differs from "heart"."""

    pitch: float  # times
    liveliness: float  # times, how far the pitch moves from its mean, in octaves
    formants: float  # times; below 1 the throat is longer
    tilt: float  # dB from the lowest frequency to the highest


def drawn(rng: np.random.Generator) -> Speaker:
    """A man, a woman or a child; pitch and throat go together, but not wholly."""
    size = rng.uniform(-1.0, 1.0)  # from a large man to a child
    formants = 1.0 + 0.17 * size + rng.normal(0.0, 0.03)
    pitch = 2.0 ** (0.85 * size + rng.normal(0.0, 0.15))
    return Speaker(float(np.clip(pitch, 0.42, 1.8)), rng.uniform(0.4, 1.5), float(np.clip(formants, 0.78, 1.2)), rng.uniform(-9.0, 6.0))


class Morphs:
    """hibari-tts, a new speaker in each line ("morph"), or one of a few that stay the same ("morph1", "morph2", ...)."""

    speakers: tuple[str, ...] = ("morph",)

    def __init__(self, speakers: tuple[str, ...] = speakers) -> None:
        import hibari
        from hibari.g2p import G2P

        self.speakers = speakers
        self._accents = [hibari.Hibari(threads=1, g2p=G2P(british=british)) for british in (False, True)]

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        """A third of the lines are said in British phonemes."""
        from hibari.dsp import synth

        own = np.random.default_rng([17, int(speaker[5:])]) if speaker[5:] else rng
        changed, voice = drawn(own), self._accents[int(own.random() < 1 / 3)]
        parts, speed = [], np.array([rng.uniform(0.8, 1.25)], np.float32)
        for phonemes in voice.phonemize(line):
            outputs = voice.sess.run(None, {"ids": np.array([voice.ids(phonemes)], np.int64), "speed": speed})
            parts.append(synth(*morphed([output[0] for output in outputs], changed), rng))
        samples = np.concatenate(parts) if parts else np.zeros(1, np.float32)
        return Speech(soxr.resample(samples, 24000, RATE).astype(np.float32), f"hibari-{speaker}")


def morphed(parts: Parts, speaker: Speaker) -> Parts:
    """What the vocoder is given, for another speaker."""
    *spectra, pitch = parts
    bins = np.arange(len(spectra[0]))
    nearest = np.minimum(np.rint(bins / speaker.formants), bins[-1]).astype(int)
    moved = [spectrum[nearest] for spectrum in spectra]
    gain = (speaker.tilt * np.log(10) / 20 * bins / bins[-1]).astype(np.float32)[:, None]
    for loudness in (0, 2, 3):
        moved[loudness] = moved[loudness] + gain
    voiced = pitch > VOICED
    middle = np.exp(np.log(pitch[voiced]).mean()) if voiced.any() else HEART_PITCH
    lively = middle * speaker.pitch * (np.maximum(pitch, VOICED) / middle) ** speaker.liveliness
    return [*moved, np.where(voiced, lively, 0.0).astype(np.float32)]
