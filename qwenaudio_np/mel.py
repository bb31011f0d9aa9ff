"""Waveform -> log-mel spectrogram, the encoder's input.

    [samples] -> zeros to [480000] -> windows [3000, 400] -> power [3000, 201] -> mel [80, 3000] -> log, floor, scale

The waveform is padded, not the features, and the floor depends on the loudest value of the whole padded 30 s.
Source: Whisper, audio.py, log_mel_spectrogram; the mel scale and its filters from Slaney's Auditory Toolbox (1998).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from qwenaudio_np.audio import CLIP_FRAMES, CLIP_SAMPLES, HOP, N_FFT, SAMPLE_RATE
from qwenaudio_np.errors import AudioError

N_BINS = N_FFT // 2 + 1  # 201 frequencies, 0 to 8 kHz in steps of 40 Hz

# Slaney's mel scale: straight up to 1000 Hz (15 mel), then logarithmic, 27 mel for each factor of 6.4.
LINEAR_HZ_PER_MEL = 200.0 / 3.0
KNEE_HZ = 1000.0
KNEE_MEL = KNEE_HZ / LINEAR_HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27.0

Array = NDArray[np.float64]


def hz_to_mel(hz: Array) -> Array:
    """Frequency in Hz -> Slaney mel, same shape."""
    above = KNEE_MEL + np.log(np.maximum(hz, KNEE_HZ) / KNEE_HZ) / LOG_STEP
    return np.where(hz < KNEE_HZ, hz / LINEAR_HZ_PER_MEL, above)


def mel_to_hz(mel: Array) -> Array:
    """Slaney mel -> frequency in Hz, same shape."""
    above = KNEE_HZ * np.exp(LOG_STEP * (np.maximum(mel, KNEE_MEL) - KNEE_MEL))
    return np.where(mel < KNEE_MEL, mel * LINEAR_HZ_PER_MEL, above)


@functools.cache
def mel_filters(n_mels: int) -> Array:
    """Triangles of equal area, evenly spaced in mel over 0..8 kHz: [n_mels, 201], read-only.

    Filter m rises from edge m to edge m + 1 and falls to edge m + 2. Slaney's normalisation divides by half the
    width in Hz, so that a wide filter does not answer louder than a narrow one.
    """
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_BINS)  # Hz, [201]
    top = hz_to_mel(np.array(SAMPLE_RATE / 2))
    edges = mel_to_hz(np.linspace(0.0, float(top), n_mels + 2, dtype=np.float64))  # Hz, [n_mels + 2]
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]  # [n_mels, 1]
    rising = (bins - low) / (centre - low)  # [n_mels, 201]
    falling = (high - bins) / (high - centre)  # [n_mels, 201]
    filters: Array = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (high - low))
    filters.flags.writeable = False  # one array serves every caller
    return filters


def power_spectrum(padded: Array) -> Array:
    """Centred STFT: [480000] -> |.|^2 of [3000, 201]. Frame k is centred on sample 160 k.

    The ends are mirrored by half a window; the 3001st frame, centred past the last sample, is dropped.
    """
    mirrored = np.pad(padded, N_FFT // 2, mode="reflect")  # [480400]
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, N_FFT)[::HOP][:CLIP_FRAMES]  # [3000, 400]
    # Periodic Hann: it divides by 400, where np.hanning(400), the symmetric one, divides by 399.
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT)  # [400]
    spectrum = np.fft.rfft(windows * hann, axis=1)  # [3000, 201]
    power: Array = spectrum.real**2 + spectrum.imag**2
    return power


def log_mel(waveform: NDArray[np.floating[Any]], n_mels: int = 80, dtype: DTypeLike = np.float32) -> NDArray[np.floating[Any]]:
    """[samples] at 16 kHz, at most 480,000 -> [n_mels, 3000] of `dtype`.

    Raises AudioError for another shape or a longer waveform.
    """
    if waveform.ndim != 1 or len(waveform) > CLIP_SAMPLES:
        raise AudioError(f"waveform of shape {waveform.shape}, expected [samples] with at most {CLIP_SAMPLES}; cut it first")
    # All in float64, rounded once at the end: near the floor a float32 FFT is wrong by 5e-4 (the original's is),
    # and which bits are wrong depends on the FFT library. In float64 every library gives the same float32.
    padded = np.zeros(CLIP_SAMPLES)
    padded[: len(waveform)] = waveform
    mel = mel_filters(n_mels) @ power_spectrum(padded).T  # [n_mels, 3000]
    log = np.log10(np.maximum(mel, 1e-10))
    log = np.maximum(log, log.max() - 8.0)  # the maximum of all 30 s, padding included
    return ((log + 4.0) / 4.0).astype(dtype)
