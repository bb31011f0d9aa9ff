"""Sounds that are neither speech nor music: noises of many kinds, and silence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from demo.clip_store import FULL_SCALE, RATE

Random = np.random.Generator


def coloured(draw: Random, count: int, slope: float, low: float = 20, high: float = RATE / 2) -> np.ndarray:
    """Noise [count] whose power falls as frequency to the power of `slope` (0 white, 1 pink, 2 brown) between two frequencies."""
    spectrum = np.fft.rfft(draw.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    inside = (frequency >= low) & (frequency <= high)
    return np.fft.irfft(np.where(inside, spectrum * np.maximum(frequency, low) ** (-slope / 2), 0), count)


def swell(draw: Random, count: int, per_second: float, depth: float) -> np.ndarray:
    """A slow random change of loudness [count] around 1: points `per_second`, up to a factor of e^(2 depth) or so, joined smoothly."""
    points = max(2, int(count / RATE * per_second) + 2)
    return np.exp(depth * np.interp(np.linspace(0, points - 1, count), np.arange(points), draw.standard_normal(points)))


def bursts(draw: Random, count: int, per_second: float, decay: float, low: float, high: float) -> np.ndarray:
    """Clicks at random times [count]: each a burst of noise between two frequencies that dies away in `decay` seconds."""
    length = max(8, round(5 * decay * RATE))
    shape = np.exp(-np.arange(length) / (decay * RATE))
    sound = np.zeros(count + length)
    for start in draw.integers(0, count, draw.poisson(per_second * count / RATE) + 1):
        sound[start : start + length] += draw.exponential() * shape * draw.standard_normal(length)
    return band(sound[:count], low, high)


def band(sound: np.ndarray, low: float, high: float) -> np.ndarray:
    """What of a sound [n] lies between two frequencies."""
    spectrum = np.fft.rfft(sound)
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    return np.fft.irfft(np.where((frequency >= low) & (frequency <= high), spectrum, 0), len(sound))


def hiss(draw: Random, count: int, test: bool) -> np.ndarray:
    """White, pink and brown noise; for the test, slopes between and beyond those."""
    return coloured(draw, count, draw.choice([0.5, 1.5, 2.5] if test else [0.0, 1.0, 2.0]))


def narrow(draw: Random, count: int, test: bool) -> np.ndarray:
    """Noise of one band: its centre and its width (octaves) vary."""
    centre, octaves = np.exp(draw.uniform(np.log(150), np.log(5000))), draw.uniform(1.2, 1.7) if test else draw.uniform(0.4, 1.2)
    return coloured(draw, count, 0, centre * 2 ** (-octaves / 2), min(centre * 2 ** (octaves / 2), RATE / 2))


def hum(draw: Random, count: int, test: bool) -> np.ndarray:
    """A hum with its harmonics and a little hiss: of machines, 35 to 56 Hz, and of 60 Hz mains for the test."""
    time, pitch = np.arange(count) / RATE, 60.0 if test else draw.uniform(35, 56)
    sound = np.zeros(count)
    for harmonic in range(1, draw.integers(4, 16)):
        sound += draw.exponential() / harmonic * np.sin(2 * np.pi * (pitch * harmonic * time + draw.random()))
    return sound + draw.uniform(0.02, 0.3) * coloured(draw, count, 0)


def clicks(draw: Random, count: int, test: bool) -> np.ndarray:
    """Single clicks, knocks and crackle over a faint hiss."""
    rate = draw.uniform(12, 25) if test else draw.uniform(1, 12)
    low = draw.uniform(50, 1500)
    sound = bursts(draw, count, rate, np.exp(draw.uniform(np.log(0.0005), np.log(0.02))), low, draw.uniform(2 * low, RATE / 2))
    return sound + 0.003 * coloured(draw, count, 1) / RATE


def rain(draw: Random, count: int, test: bool) -> np.ndarray:
    """Very many small drops over a hiss of high frequencies."""
    drops = bursts(draw, count, draw.uniform(400, 700) if test else draw.uniform(100, 400), 0.001, 800, RATE / 2)
    return drops / drops.std() + draw.uniform(0.3, 2) * unit(coloured(draw, count, draw.uniform(0, 1), 500))


def wind(draw: Random, count: int, test: bool) -> np.ndarray:
    """Low noise that swells and falls; for the test faster, as waves on a beach."""
    pace = draw.uniform(2.0, 3.0) if test else draw.uniform(0.5, 2.0)
    low = unit(coloured(draw, count, draw.uniform(1.5, 3), 40)) * swell(draw, count, pace, 0.6)
    whistle = coloured(draw, count, 0, *(draw.uniform(300, 500) * np.array([1, 1.3])))
    return low + draw.uniform(0, 0.4) * unit(whistle) * swell(draw, count, pace, 1.0)


def engine(draw: Random, count: int, test: bool) -> np.ndarray:
    """Strokes of a motor, 12 to 90 a second and never quite regular, each a short burst."""
    strokes = draw.uniform(60, 90) if test else draw.uniform(12, 60)
    speed = strokes * swell(draw, count, draw.uniform(0.5, 2), 0.06) * (1 + 0.02 * draw.standard_normal(count))
    phase = np.cumsum(speed) / RATE
    pulse = np.exp(-draw.uniform(2, 8) * (phase % 1)) * (1 + 0.5 * draw.standard_normal(int(phase[-1]) + 1)[phase.astype(int)])
    rattle = unit(coloured(draw, count, draw.uniform(0.5, 1.5), 60, draw.uniform(1000, 6000)))
    return band(unit(pulse - pulse.mean()) * (1 + rattle), 30, RATE / 2) + draw.uniform(0.1, 0.6) * rattle


NOISES: tuple[Callable[[Random, int, bool], np.ndarray], ...] = (hiss, narrow, hum, clicks, rain, wind, engine)


def unit(sound: np.ndarray) -> np.ndarray:
    """The same sound with an average power of 1."""
    return sound / np.sqrt(np.mean(sound**2))


def at_level(sound: np.ndarray, decibels: float) -> np.ndarray:
    """The sound at this average level (dB below full scale: -20 is a power of 0.01), lower if its peak would exceed 0.99."""
    scaled = unit(sound) * 10 ** (decibels / 20)
    return scaled * min(1.0, 0.99 / np.abs(scaled).max())


def noise(draw: Random, count: int, test: bool) -> tuple[str, np.ndarray]:
    """Name of its kind, and a noise [count] at -40 to -10 dB; a third of them two kinds together."""
    kinds = draw.choice(len(NOISES), 2 if draw.random() < 1 / 3 else 1, replace=False)
    sounds = [unit(NOISES[kind](draw, count, test)) * draw.uniform(0.3, 1) for kind in kinds]
    return " and ".join(NOISES[kind].__name__ for kind in kinds), at_level(np.sum(sounds, axis=0), draw.uniform(-40, -10))


def silence(draw: Random, count: int, test: bool) -> tuple[str, np.ndarray]:
    """Name of its kind, and nothing to be heard [count]: digital zero, dither, or noise at -75 to -60 dB."""
    kind = draw.choice(["zero", "dither", "faint noise", "faint noise"])
    if kind == "zero":
        return "zero", np.zeros(count)
    if kind == "dither":  # triangular, of one 16-bit step
        return "dither", (draw.random(count) - draw.random(count)) / FULL_SCALE
    slope = draw.choice([0.5, 1.5]) if test else draw.choice([0.0, 1.0, 2.0])
    return "faint noise", at_level(coloured(draw, count, slope), draw.uniform(-75, -60))
