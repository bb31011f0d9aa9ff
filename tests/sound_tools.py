"""Sound files made for tests, right ones and WAV headers that lie, and what reading them back gives."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from qwenaudio_np.audio import Clip, clip_from_array, load_clip
from qwenaudio_np.errors import AudioError

SPEECH_LIKE = np.convolve(np.random.default_rng(0).normal(size=64_000), np.ones(8) / 8, "same") * 0.3  # 4 s at 16 kHz
STEPS = np.round(SPEECH_LIKE * 32768).astype(np.int16)


def written(path: Path, data: NDArray[np.generic], rate: int, **options: str) -> bytes:
    """Write a sound file, or skip where this libsndfile cannot."""
    try:
        soundfile.write(path, data, rate, **options)
    except soundfile.LibsndfileError as failure:
        pytest.skip(f"this libsndfile does not write {options}: {failure}")
    return path.read_bytes()


def wav(samples: bytes = b"", *, rate: int = 16_000, channels: int = 1, claims: int | None = None, riff: int | None = None) -> bytes:
    """A 16-bit WAV file whose header says what it is told to."""
    size = len(samples) if claims is None else claims
    whole = min(36 + size, 2**32 - 1) if riff is None else riff
    layout = struct.pack("<HHIIHH", 1, channels, rate, min(rate * channels * 2, 2**32 - 1), (channels * 2) % 2**16, 16)
    return b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt \x10\0\0\0" + layout + b"data" + struct.pack("<I", size) + samples


def steps_of(clip: Clip) -> NDArray[np.int64]:
    steps = clip.waveform.astype(np.float64) * 32768
    assert np.array_equal(steps, np.rint(steps))
    return steps.astype(np.int64)


def wav_of(samples: NDArray[np.generic], rate: int, subtype: str = "PCM_16") -> io.BytesIO:
    """A right WAV file in memory."""
    held = io.BytesIO()
    soundfile.write(held, samples, rate, format="WAV", subtype=subtype)
    held.seek(0)
    return held


def refusal(source: Path | io.BytesIO) -> str:
    """The message of the AudioError that the source raises: one line of ASCII."""
    return _refusal(lambda: load_clip(source))


def array_refusal(samples: object, rate: float = 16_000) -> str:
    """The same for an array."""
    return _refusal(lambda: clip_from_array(samples, rate))  # type: ignore[arg-type]


def _refusal(load: Callable[[], Clip]) -> str:
    with pytest.raises(AudioError) as failure:
        load()
    message = str(failure.value)
    assert message.isascii()
    assert message.isprintable()
    return message
