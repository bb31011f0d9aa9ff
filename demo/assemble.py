"""Sounds of single words put together into strings with exactly known times, and the finishing of every clip."""

from __future__ import annotations

import numpy as np
import soxr

from demo.voices import RATE, Samples, Speech, WordTimes

FRAME = RATE // 100  # 10 ms
QUIET = 1e-4  # of the loudest frame's power, -40 dB: below it a frame is silence
PEAK = 0.7


def sounding(samples: Samples) -> tuple[int, int]:
    """First and last-plus-one sample that sounds, by the power of 10 ms frames.

    Raises:
        ValueError: the samples are all silent.
    """
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.square(frames, dtype=np.float64).mean(1)
    if not len(power) or power.max() < 1e-8:
        raise ValueError(f"the synthesiser gave {len(samples)} silent samples")
    loud = np.flatnonzero(power > QUIET * power.max())
    return int(loud[0]) * FRAME, int(loud[-1] + 1) * FRAME


def trimmed(speech: Speech) -> Speech:
    """Speech without the silence around it; the times of its words move along."""
    start, end = sounding(speech.samples)
    if speech.words is None:
        return Speech(speech.samples[start:end], speech.speaker)
    return Speech(speech.samples[start:end], speech.speaker, times_within(speech.words, start / RATE, (end - start) / RATE))


def times_within(words: WordTimes, start: float, length: float) -> WordTimes:
    """The times of words in the `length` seconds of a clip from `start` on, none before or behind them."""
    return [(word, min(max(first - start, 0.0), length), min(last - start, length)) for word, first, last in words]


def assembled(sounds: list[tuple[str, Samples]], gaps: list[float]) -> tuple[Samples, WordTimes]:
    """Trimmed words one after another with `gaps` seconds of silence between them: samples, and each word's start and end."""
    parts: list[Samples] = []
    words: WordTimes = []
    at = 0
    for (word, samples), gap in zip(sounds, [*gaps, 0.0], strict=True):
        words.append((word, at / RATE, (at + len(samples)) / RATE))
        silence = np.zeros(round(gap * RATE), np.float32)
        parts += [samples, silence]
        at += len(samples) + len(silence)
    return np.concatenate(parts), words


def warped(speech: Speech, factor: float) -> Speech:
    """Speech played `factor` times as fast, which raises its pitch as much: another speaker, for little."""
    samples = soxr.resample(speech.samples, RATE * factor, RATE).astype(np.float32)
    words = speech.words and [(word, start / factor, end / factor) for word, start, end in speech.words]
    return Speech(samples, speech.speaker, words)


def padded(speech: Speech, lead: float, tail: float) -> Speech:
    """Speech at a peak of PEAK between `lead` and `tail` seconds of silence."""
    before, after = (np.zeros(round(seconds * RATE), np.float32) for seconds in (lead, tail))
    shift = len(before) / RATE
    words = speech.words and [(word, start + shift, end + shift) for word, start, end in speech.words]
    samples = speech.samples * np.float32(PEAK / max(np.abs(speech.samples).max(), 1e-6))
    return Speech(np.concatenate([before, samples, after]), speech.speaker, words)
