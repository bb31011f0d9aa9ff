"""Lengths, averaging, resampling, rounding, cutting: what becomes of sound after decoding."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from qwenaudio_np import audio
from qwenaudio_np.audio import Clip, clip_from_array, exact_div, load_clip, position_count, vector_count
from qwenaudio_np.mel import log_mel
from tests.sound_tools import array_refusal, wav_of

RATES = [8000, 11_025, 12_345, 22_050, 44_100, 48_000, 96_000, 192_000]


# --- lengths ------------------------------------------------------------------------------------------------------


def test_constants() -> None:
    assert (audio.SAMPLE_RATE, audio.CLIP_SAMPLES, audio.HOP, audio.N_FFT) == (16_000, 480_000, 160, 400)
    assert (audio.CLIP_FRAMES, audio.CLIP_POSITIONS, audio.CLIP_VECTORS) == (3000, 1500, 750)
    with pytest.raises(ValueError, match="not a multiple"):
        exact_div(10, 3)


@pytest.mark.parametrize(
    ("samples", "frames", "positions", "vectors"),
    # frames = whole hops of 160; positions = half of them, rounded up; vectors = half of those, rounded down
    [
        (0, 0, 0, 0),
        (1, 0, 0, 0),
        (159, 0, 0, 0),
        (160, 1, 1, 0),
        (319, 1, 1, 0),
        (320, 2, 1, 0),
        (399, 2, 1, 0),
        (479, 2, 1, 0),
        (480, 3, 2, 1),
        (639, 3, 2, 1),
        (640, 4, 2, 1),
        (800, 5, 3, 1),
        (1119, 6, 3, 1),
        (1120, 7, 4, 2),
        (8531, 53, 27, 13),
        (479_999, 2999, 1500, 750),
        (480_000, 3000, 1500, 750),
    ],
)
def test_mistake_off_by_one_in_lengths(samples: int, frames: int, positions: int, vectors: int) -> None:
    assert position_count(samples) == positions
    assert vector_count(samples) == vectors
    clip = Clip(np.zeros(samples, np.float32), "", samples / 16_000, None, ())
    assert (clip.frames, clip.positions, clip.vectors) == (frames, positions, vectors)


def strided(length: int, width: int, stride: int, padding: int) -> int:
    """Output length of a convolution or pool, by counting the places where the window fits."""
    return sum(1 for start in range(-padding, length + padding - width + 1) if (start + padding) % stride == 0)


def test_lengths_are_those_of_the_layers() -> None:
    """mel -> conv (3, stride 1, padding 1) -> conv (3, stride 2, padding 1) -> pool (2, stride 2)."""
    for frames in range(1, 60):
        positions = strided(strided(frames, 3, 1, 1), 3, 2, 1)
        assert position_count(160 * frames) == positions
        assert vector_count(160 * frames) == strided(positions, 2, 2, 0)


# --- averaging and rounding ---------------------------------------------------------------------------------------


def test_16_khz_mono_16_bit_is_kept_exactly() -> None:
    every = np.arange(-32_768, 32_768, dtype=np.int16)
    for clip in (load_clip(wav_of(every, 16_000)), clip_from_array(every, 16_000), clip_from_array(every / 32768, 16_000)):
        assert clip.waveform.dtype == np.float32
        assert np.array_equal(clip.waveform.astype(np.float64) * 32768, every)
        assert clip.warnings == ()
        assert clip.seconds == clip.total_seconds == 4.096


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 16])
def test_equal_channels_are_kept_exactly(channels: int) -> None:
    steps = np.arange(-32_768, 32_768, 7, dtype=np.int16)
    clip = clip_from_array(np.repeat(steps[:, None], channels, axis=1), 16_000)
    assert np.array_equal(clip.waveform.astype(np.float64) * 32768, steps)


def test_averages_round_half_to_even() -> None:
    """(0 + 1) / 2 = 0.5 -> 0, (1 + 2) / 2 = 1.5 -> 2, (2 + 3) / 2 = 2.5 -> 2, and the same below zero."""
    pairs = np.array([[0, 1], [1, 2], [2, 3], [-1, 0], [-2, -1], [-3, -2], [5, 7]], np.int16)
    clip = clip_from_array(np.tile(pairs, (100, 1)), 16_000)
    assert (clip.waveform[:7] * 32768).tolist() == [0, 2, 2, 0, -2, -2, 6]


def test_average_of_six_channels_is_exact() -> None:
    steps = np.random.default_rng(0).integers(-32_768, 32_768, (1000, 6)).astype(np.int16)
    want = [round(Fraction(int(row.sum(dtype=np.int64)), 6)) for row in steps]  # Fraction rounds halves to even
    assert (load_clip(wav_of(steps, 16_000)).waveform * 32768).tolist() == want


def test_opposite_channels_give_silence_and_finite_features() -> None:
    left = np.random.default_rng(0).integers(-32_767, 32_768, 8000).astype(np.int16)
    clip = load_clip(wav_of(np.stack([left, -left], axis=1), 16_000))
    assert not clip.waveform.any()
    assert np.array_equal(log_mel(clip.waveform), np.full((80, 3000), -1.5, np.float32))


def test_integer_widths_have_their_own_full_scale() -> None:
    half = np.full(1000, 0.5)
    for array in (half, half.astype(np.float32), half.astype(np.float16), (half * 2**15).astype(np.int16), (half * 2**31).astype(np.int32)):
        assert np.array_equal(clip_from_array(array, 16_000).waveform, np.full(1000, 0.5, np.float32))


# --- resampling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("hertz", [100.0, 440.0, 2500.0])
def test_resampled_sine_is_the_sine(rate: int, hertz: float) -> None:
    """Sampled at `rate` and brought to 16 kHz, a sine is the sine sampled at 16 kHz.

    Allowed: half a step of rounding, and a tenth of a step for the filter's ripple (VHQ: 28 bits, 2^-13 steps) and for
    the end effects, which are left out by 100 ms at each end.
    """
    source = 0.9 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    clip = load_clip(wav_of(source, rate, "DOUBLE"))
    assert len(clip.waveform) == 16_000
    want = 0.9 * np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000)
    assert np.abs(clip.waveform - want)[1600:-1600].max() <= 0.6 / 32768


def test_what_16_khz_cannot_hold_is_removed() -> None:
    """A tone of 10 kHz would come back as one of 6 kHz if samples were merely dropped."""
    clip = clip_from_array(0.9 * np.sin(2 * np.pi * 10_000 * np.arange(48_000) / 48_000), 48_000)
    assert np.abs(clip.waveform[1600:-1600]).max() <= 1 / 32768


@pytest.mark.parametrize("rate", [1, 3, 10, 1000, 7999, 15_999, 44_100])
def test_reading_stops_without_changing_the_30_seconds(rate: int) -> None:
    """Past 30 s only a margin is read; ten times as much gives the same samples."""
    random = np.random.default_rng(rate)
    steps = random.integers(-3000, 3000, 30 * rate + 4000).astype(np.int16)
    short = clip_from_array(steps, rate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "LOOKAHEAD_FRAMES", 2560 if rate > 1 else 512)
        more = clip_from_array(steps, rate)
    assert len(short.waveform) == 480_000
    assert np.array_equal(short.waveform, more.waveform)


def test_extreme_rates() -> None:
    """1 Hz: 30 samples are a whole clip. 10 MHz: 300,000 samples are the shortest."""
    assert clip_from_array(np.zeros(30), 1).seconds == 30
    assert clip_from_array(np.zeros(300_000), 10_000_000).vectors == 1
    assert "0 Hz, expected 1 to 10000000" in array_refusal(np.zeros(1000), 0)
    assert "-16000 Hz" in array_refusal(np.zeros(1000), -16_000)
    assert "10000001 Hz" in array_refusal(np.zeros(1000), 10_000_001)
    assert "an int of too many digits to show Hz" in array_refusal(np.zeros(1000), 10**5000)


# --- cutting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "dropped"),
    [
        (479_999, None),
        (480_000, None),
        (480_001, "0.0000625 s of 30.0000625 s dropped"),
        (496_077, "1.0048125 s of 31.0048125 s dropped"),
        (960_000, "30 s of 60 s dropped"),
    ],
)
def test_longer_than_30_seconds_is_cut_and_said(samples: int, dropped: str | None) -> None:
    steps = np.random.default_rng(0).integers(-100, 100, samples).astype(np.int16)
    for clip in (clip_from_array(steps, 16_000), load_clip(wav_of(steps, 16_000))):
        assert np.array_equal(clip.waveform * 32768, steps[:480_000])
        assert clip.seconds == min(samples, 480_000) / 16_000
        assert clip.total_seconds == samples / 16_000
        if dropped is None:
            assert clip.warnings == ()
        else:
            assert clip.warnings == (f"'{clip.path}' is longer than 30 s: the first 30 s are used, {dropped}",)


def test_a_third_of_a_sample_is_nothing_to_drop() -> None:
    """1,440,001 samples at 48 kHz are 480,000 and a third at 16 kHz."""
    assert clip_from_array(np.zeros(1_440_001), 48_000).warnings == ()


def test_clips_compare_by_identity(speech: Path) -> None:
    """Comparing arrays inside a dataclass would raise; a clip can stand in a list or a set."""
    one, other = load_clip(speech), load_clip(speech)
    assert one == one
    assert one != other
    assert len({one, other}) == 2
