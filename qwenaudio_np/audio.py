"""Sound file or array -> 16 kHz mono waveform in int16 steps, and how many positions and vectors it becomes.

    file or array [frames, channels] at any rate -> average [frames] -> resampled [samples] -> rounded to n / 32768

The original pipes every clip through ffmpeg to signed 16-bit samples; rounding to the same steps keeps a 16 kHz
mono 16-bit file exactly as it is. Other rates (soxr, not ffmpeg's own resampler), more channels (their mean in float64; ffmpeg has
weights for more than two) and more bits (rounded; ffmpeg cuts them off) give other samples than the original's: compare
implementations on 16 kHz mono files of 16 bits.
One clip holds at most 30 s: more is cut, and `Clip.warnings` says how much.
Source: audio.py of Qwen-Audio, load_audio and get_T_after_cnn; Whisper, audio.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import soxr
from numpy.typing import ArrayLike, NDArray

from qwenaudio_np.errors import AudioError, shown, value_of
from qwenaudio_np.sound_file import Recording, open_recording


def exact_div(dividend: int, divisor: int) -> int:
    """The quotient of two integers that must divide without remainder."""
    quotient, remainder = divmod(dividend, divisor)
    if remainder:
        raise ValueError(f"{dividend} is not a multiple of {divisor}")
    return quotient


SAMPLE_RATE = 16_000  # Hz
CLIP_SECONDS = 30
N_FFT = 400  # samples in one analysis window: 25 ms
HOP = 160  # samples from one mel frame to the next: 10 ms
CLIP_SAMPLES = CLIP_SECONDS * SAMPLE_RATE  # 480,000
CLIP_FRAMES = exact_div(CLIP_SAMPLES, HOP)  # 3,000 mel frames
CLIP_POSITIONS = exact_div(CLIP_FRAMES, 2)  # 1,500 after the second convolution's stride
CLIP_VECTORS = exact_div(CLIP_POSITIONS, 2)  # 750 after pooling pairs
MIN_SAMPLES = 3 * HOP  # 480: the shortest clip that becomes one vector
INT16_STEPS = 32_768  # steps from 0 to full scale

MAX_CHANNELS = 1024  # what libsndfile allows; more in an array means that its axes are swapped
ODDLY_LOUD = 8.0  # times full scale: no decoder overshoots so far, the values are on another scale
LOOKAHEAD_FRAMES = 256  # frames read past 30 s at low rates, where the resampler's filter reaches furthest: 128 still move a sample by 1e-9

Samples = NDArray[np.float64]


def position_count(samples: int) -> int:
    """T: encoder positions of a clip, one frame per 160 samples, one position per two frames."""
    return (samples // HOP - 1) // 2 + 1


def vector_count(samples: int) -> int:
    """N: audio vectors of a clip, one for each whole pair of positions."""
    return (position_count(samples) - 2) // 2 + 1


@dataclass(frozen=True, eq=False)  # compared by identity: arrays have no single truth
class Clip:
    """What the model hears of one recording."""

    waveform: NDArray[np.float32]  # [samples], 16 kHz mono, multiples of 1/32768
    path: str  # where it came from, unescaped: pass it through `shown` before printing
    seconds: float  # length of the waveform
    total_seconds: float | None  # length of the recording, as far as it can be read; None if not known
    warnings: tuple[str, ...]  # one line each, with the name

    @property
    def frames(self) -> int:
        """Mel frames that are the clip's own, before the padding."""
        return len(self.waveform) // HOP

    @property
    def positions(self) -> int:
        """T, see position_count."""
        return position_count(len(self.waveform))

    @property
    def vectors(self) -> int:
        """N, see vector_count."""
        return vector_count(len(self.waveform))


def load_clip(source: str | os.PathLike[str] | BinaryIO) -> Clip:
    """Read a sound file, or a binary stream holding one, in any format, rate and channel count of soundfile.

    Raises AudioError if it is not audio, empty, shorter than 480 samples at 16 kHz, or has NaN or infinite samples
    in what is heard, the first 30 s.
    """
    with open_recording(source) as recording:
        return _clip(recording)


def clip_from_array(waveform: ArrayLike, sample_rate: int) -> Clip:
    """The same path for an array: [samples] or [samples, channels], float in -1..1, int16 or int32.

    Raises AudioError as load_clip does, and for another shape or dtype.
    """
    try:
        array = np.asarray(waveform)
    except ValueError:
        raise AudioError("audio is no array: its rows are of different lengths, expected [samples] or [samples, channels]") from None
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= array.shape[1] <= MAX_CHANNELS):
        raise AudioError(f"audio array of shape {array.shape}, expected [samples] or [samples, channels]; transpose [channels, samples]")
    if array.dtype.kind != "f" and array.dtype not in (np.int16, np.int32):
        raise AudioError(f"audio array of dtype {array.dtype}, expected float in -1..1, int16 or int32")
    try:
        rate = int(sample_rate)
    except (TypeError, ValueError, OverflowError):  # text, NaN, infinity
        rate = -1
    if rate != sample_rate:
        raise AudioError(f"sample rate {value_of(sample_rate)}, expected a whole number of Hz")
    columns = array[:, None] if array.ndim == 1 else array  # [samples, channels]
    full_scale = 1.0 if array.dtype.kind == "f" else float(2 ** (8 * array.dtype.itemsize - 1))
    done = 0

    def read(frames: int) -> Samples:
        nonlocal done
        done += frames
        return columns[done - frames : done].astype(np.float64) / full_scale

    return _clip(Recording("<array>", rate, columns.shape[1], len(columns), read))


@dataclass
class _Downmix:
    """Averages channels and keeps account of frames that are not finite, as far as frame `reach`: what comes behind it is not heard."""

    reach: int
    bad: int = 0
    first_bad: int = -1
    seen: int = 0

    def mono(self, block: Samples) -> Samples:
        """[frames, channels] -> [frames]; frames that are not finite become 0, so that they can all be counted."""
        with np.errstate(over="ignore", invalid="ignore"):
            mono: Samples = block.sum(axis=1) / block.shape[1]
            bad = ~(np.abs(mono) <= np.finfo(np.float32).max)  # NaN compares false; beyond float32 counts as infinite
        heard = bad[: max(0, self.reach - self.seen)]
        if heard.any():
            if self.bad == 0:
                self.first_bad = self.seen + int(np.argmax(heard))
            self.bad += int(heard.sum())
        mono[bad] = 0.0
        self.seen += len(mono)
        return mono


def _resample(blocks: Iterable[Samples], rate: int) -> Samples:
    """Blocks of [frames] at `rate` -> [samples] at 16 kHz. Streamed: the result is that of one call on the whole."""
    if rate == SAMPLE_RATE:
        return np.concatenate([np.zeros(0), *blocks])
    # VHQ in float64: its error (1e-9 of full scale below 3 kHz) is far under the int16 rounding that follows.
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float64", quality="VHQ")
    pieces = [stream.resample_chunk(block) for block in blocks]
    return np.concatenate([*pieces, stream.resample_chunk(np.zeros(0), last=True)])


def _clip(recording: Recording) -> Clip:
    name, rate = shown(recording.name), recording.rate
    limit = CLIP_SECONDS * rate + max(LOOKAHEAD_FRAMES, rate // 8)
    downmix = _Downmix(CLIP_SECONDS * rate if rate == SAMPLE_RATE else limit)  # past 30 s only the resampler's filter hears
    samples = _resample((downmix.mono(block) for block in recording.blocks(limit)), rate)
    if recording.frames == 0:
        why = f"; {recording.damage}" if recording.damage else ""
        raise AudioError(f"{name} holds no sound (0 frames at {rate} Hz{why}), expected at least 30 ms")
    if downmix.bad:
        raise AudioError(
            f"{name} has NaN or infinity in {downmix.bad} frames, the first is frame {downmix.first_bad} "
            f"({_seconds(downmix.first_bad / rate)}), expected finite numbers; export it again"
        )
    if len(samples) < MIN_SAMPLES:
        raise AudioError(
            f"{name} is too short: got {len(samples)} samples at 16 kHz = {1000 * len(samples) / SAMPLE_RATE:g} ms, "
            f"need {MIN_SAMPLES} = 30 ms for one audio vector"
        )
    notes = _Notes(name)
    total = _total_seconds(recording)
    notes.damage(recording)
    notes.cut(len(samples), total)
    waveform = _int16_steps(samples[:CLIP_SAMPLES], notes)
    return Clip(waveform, recording.name, len(waveform) / SAMPLE_RATE, total, tuple(notes.lines))


def _int16_steps(samples: Samples, notes: _Notes) -> NDArray[np.float32]:
    """Round to n / 32768 with n in -32768..32767, halves to even; exact in float32, whose mantissa has 24 bits."""
    steps = np.rint(samples * INT16_STEPS)
    kept = np.clip(steps, -INT16_STEPS, INT16_STEPS - 1)
    notes.loudness(int(np.sum(np.abs(steps - kept) > 1)), float(np.abs(samples).max()), len(samples))
    return (kept / INT16_STEPS).astype(np.float32)


def _total_seconds(recording: Recording) -> float | None:
    if recording.ended and not recording.partial:
        return recording.frames / recording.rate
    if recording.claimed is not None and recording.claimed > recording.frames:
        return recording.claimed / recording.rate
    return None


def _seconds(value: float) -> str:
    return f"{value:.7f}".rstrip("0").rstrip(".") + " s"  # seven decimals show one sample at 16 kHz: 0.0000625 s


@dataclass
class _Notes:
    """The warnings of one clip."""

    name: str
    lines: list[str] = field(default_factory=list)

    def damage(self, recording: Recording) -> None:
        if recording.damage:
            used = _seconds(recording.frames / recording.rate)
            self.lines.append(f"{self.name} is cut short or damaged: only {used} could be read ({recording.damage})")

    def cut(self, samples: int, total: float | None) -> None:
        if samples > CLIP_SAMPLES:
            dropped = _seconds((samples - CLIP_SAMPLES) / SAMPLE_RATE if total is None else total - CLIP_SECONDS)
            amount = f"at least {dropped}" if total is None else f"{dropped} of {_seconds(total)}"
            self.lines.append(f"{self.name} is longer than {CLIP_SECONDS} s: the first {CLIP_SECONDS} s are used, {amount} dropped")

    def loudness(self, clipped: int, peak: float, samples: int) -> None:
        if clipped:
            advice = "; are its values on another scale than -1..1?" if peak > ODDLY_LOUD else ""
            self.lines.append(f"{self.name} has {clipped} of {samples} samples outside -1..1, loudest {peak:.4g}: clipped{advice}")
