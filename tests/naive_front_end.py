"""A slow, obvious float64 twin of what happens to a waveform before the network: lengths and log-mel spectrogram.

It shares no code with the package. `mistake` makes exactly one known mistake, None makes none.
"""

from __future__ import annotations

import functools
import math

import numpy as np

Array = np.ndarray

FRONT_END_MISTAKES = {
    "positions_rounded_down": "T = mel_len // 2, one too few where mel_len is odd",
    "vectors_rounded_up": "N = (T + 1) // 2, one too many where T is odd",
    "mel_not_centred": "frame k begins at sample 160 k instead of being centred there",
    "mel_symmetric_window": "a Hann window divided by 399 instead of 400",
    "mel_filters_not_normalised": "triangles of height 1 instead of equal area",
    "mel_maximum_of_clip": "the floor is 8 below the loudest value of the clip's own frames, not of the padded 30 s",
    "features_padded": "the mel is taken of the clip alone and then filled up with zeros, instead of the waveform",
}


def position_count(samples: int, mistake: str | None = None) -> int:
    """T: positions after the two convolutions."""
    mel_len = samples // 160
    return mel_len // 2 if mistake == "positions_rounded_down" else (mel_len - 1) // 2 + 1


def vector_count(positions: int, mistake: str | None = None) -> int:
    """N: audio vectors after pooling."""
    return (positions + 1) // 2 if mistake == "vectors_rounded_up" else (positions - 2) // 2 + 1


def log_mel(waveform: Array, n_mels: int = 80, mistake: str | None = None) -> Array:
    """[samples] -> [n_mels, 3000]: Whisper's log-mel spectrogram of the clip in 30 s of silence."""
    samples = np.zeros(480_000)
    samples[: len(waveform)] = waveform
    own = 2 * position_count(len(waveform), mistake)  # the clip's own frames
    if mistake == "features_padded":
        samples = np.array(waveform, np.float64)
    power = _power(samples, mistake)  # [frames, 201]
    mel = _filters(n_mels, mistake) @ power.T  # [n_mels, frames]
    log = np.log10(np.maximum(mel, 1e-10))
    loudest = log[:, :own].max() if mistake == "mel_maximum_of_clip" else log.max()
    features = (np.maximum(log, loudest - 8.0) + 4.0) / 4.0
    return np.pad(features, ((0, 0), (0, 3000 - features.shape[1])))


def _power(samples: Array, mistake: str | None) -> Array:
    """|Fourier transform|^2 of every 10 ms, by its definition: [len(samples) // 160, 201]."""
    if mistake == "mel_not_centred":
        extended = np.concatenate([samples, np.zeros(400)])
    else:
        extended = np.concatenate([samples[200:0:-1], samples, samples[-2:-202:-1]])  # mirrored, the end samples not repeated
    period = 399 if mistake == "mel_symmetric_window" else 400
    window = np.array([math.sin(math.pi * n / period) ** 2 for n in range(400)])
    frames = np.array([extended[160 * k : 160 * k + 400] * window for k in range(len(samples) // 160)])
    angles = 2.0 * math.pi * (np.outer(np.arange(400), np.arange(201)) % 400) / 400.0
    return (frames @ np.cos(angles)) ** 2 + (frames @ np.sin(angles)) ** 2


@functools.cache
def _filters(n_mels: int, mistake: str | None) -> Array:
    """Slaney's triangles over 0..8000 Hz: [n_mels, 201]."""
    top = 15.0 + 27.0 * math.log(8.0) / math.log(6.4)  # 8000 Hz in mel: 15 at 1000 Hz, then 27 for every factor of 6.4
    edges = [_hz(top * i / (n_mels + 1)) for i in range(n_mels + 2)]
    filters = np.zeros((n_mels, 201))
    for m in range(n_mels):
        low, centre, high = edges[m : m + 3]
        height = 1.0 if mistake == "mel_filters_not_normalised" else 2.0 / (high - low)
        for k in range(201):
            hz = 40.0 * k
            if low < hz <= centre:
                filters[m, k] = height * (hz - low) / (centre - low)
            elif centre < hz < high:
                filters[m, k] = height * (high - hz) / (high - centre)
    return filters


def _hz(mel: float) -> float:
    return mel * 200.0 / 3.0 if mel < 15.0 else float(1000.0 * 6.4 ** ((mel - 15.0) / 27.0))
