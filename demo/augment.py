"""What happens to a clean synthetic clip before the model hears it: rooms, microphones, noise, silence around it.

Every function takes and gives a float32 waveform at 16 kHz; what is drawn comes from the generator alone, so a clip's augmentation is a
function of its seed.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy.fft import next_fast_len
from scipy.signal import butter, fftconvolve, sosfilt

from demo.clip_store import RATE


def augment(wave: np.ndarray, random: Generator) -> tuple[np.ndarray, float]:
    """The clip as a microphone might have heard it, and how many seconds later its sounds now come."""
    lead, trail = random.uniform(0.0, 0.6, 2) * (random.random(2) < 0.6)
    wave = np.pad(wave, (round(lead * RATE), round(trail * RATE)))
    if random.random() < 0.4:
        wave = reverberate(wave, random)
    if random.random() < 0.6:
        wave = colour(wave, random)
    if random.random() < 0.15:
        wave = band_limit(wave, random)
    wave = level(wave, random)
    if random.random() < 0.6:
        wave = add_noise(wave, random)
    return np.clip(wave, -1.0, 1.0).astype(np.float32), round(lead * RATE) / RATE


def reverberate(wave: np.ndarray, random: Generator) -> np.ndarray:
    """A room: the direct sound and a tail of noise that decays by 60 dB in 0.1 to 0.6 s."""
    length = random.uniform(0.1, 0.6)
    times = np.arange(round(length * RATE)) / RATE
    tail = random.standard_normal(len(times)) * 10.0 ** (-3.0 * times / length)
    tail *= random.uniform(0.1, 0.7) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return fftconvolve(wave, tail)[: len(wave)]


def colour(wave: np.ndarray, random: Generator) -> np.ndarray:
    """A microphone's frequency response: a random smooth curve within about +-9 dB, without delay."""
    size = next_fast_len(len(wave), real=True)
    gains = np.interp(np.linspace(0.0, 7.0, size // 2 + 1), np.arange(8), random.normal(0.0, 4.0, 8))
    return np.fft.irfft(np.fft.rfft(wave, size) * 10.0 ** (gains / 20.0), size)[: len(wave)]


def band_limit(wave: np.ndarray, random: Generator) -> np.ndarray:
    """A telephone or an old recorder: 3 to 5 kHz at most, sometimes nothing below 300 Hz."""
    wave = sosfilt(butter(6, random.uniform(3000.0, 5000.0), "low", fs=RATE, output="sos"), wave)
    if random.random() < 0.5:
        wave = sosfilt(butter(3, random.uniform(100.0, 300.0), "high", fs=RATE, output="sos"), wave)
    return wave


def level(wave: np.ndarray, random: Generator) -> np.ndarray:
    """A peak of 0.05 to 0.95 (silence stays as it is)."""
    peak = np.abs(wave).max()
    return wave * (10.0 ** random.uniform(-1.3, -0.02) / peak) if peak > 0.01 else wave


def add_noise(wave: np.ndarray, random: Generator, loudest: float = 8.0, quietest: float = 45.0) -> np.ndarray:
    """Noise with a power of 1/f^0 to 1/f^2, `loudest` to `quietest` dB below the clip, over all of it."""
    size = next_fast_len(len(wave), real=True)
    shaped = np.fft.rfft(random.standard_normal(size))
    shaped /= np.maximum(np.arange(len(shaped)), size // 400 + 1) ** random.uniform(0.0, 1.0)
    noise = np.fft.irfft(shaped, size)[: len(wave)]
    loudness = np.sqrt(np.mean(wave**2)) * 10.0 ** (-random.uniform(loudest, quietest) / 20.0)
    return wave + noise * (loudness / np.sqrt(np.mean(noise**2)))
