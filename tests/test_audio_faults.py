"""Sound after decoding that is refused, and what is only warned about."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qwenaudio_np.audio import clip_from_array, load_clip
from qwenaudio_np.errors import AudioError
from qwenaudio_np.mel import log_mel
from tests.sound_tools import array_refusal, wav_of


@pytest.mark.parametrize(("samples", "rate", "got"), [(1, 16_000, 1), (479, 16_000, 479), (1437, 48_000, 479), (239, 8000, 478)])
def test_too_short(samples: int, rate: int, got: int) -> None:
    message = array_refusal(np.zeros(samples), rate)
    assert f"got {got} samples at 16 kHz = {got / 16:g} ms, need 480 = 30 ms" in message


@pytest.mark.parametrize(("samples", "rate"), [(480, 16_000), (1440, 48_000), (240, 8000)])
def test_just_long_enough(samples: int, rate: int) -> None:
    clip = clip_from_array(np.zeros(samples), rate)
    assert (len(clip.waveform), clip.vectors) == (480, 1)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_not_finite(bad: float, rate: int) -> None:
    """All of them are counted, across blocks, and the first one's place is said."""
    samples = np.zeros((20_000, 2))
    samples[5000, 1] = samples[5001] = samples[19_000, 0] = bad
    with pytest.raises(AudioError, match=rf"NaN or infinity in 3 frames, the first is frame 5000 \({5000 / rate:.7f}".rstrip("0")):
        load_clip(wav_of(samples, rate, "DOUBLE"))


@pytest.mark.parametrize(("second", "heard"), [(29.99, True), (30.0, False), (30.05, False)])
def test_what_is_not_finite_behind_30_s_is_not_heard(second: float, heard: bool) -> None:
    samples = np.zeros(31 * 16_000)
    samples[round(second * 16_000)] = math.nan
    samples[-1] = math.nan
    if heard:
        assert "NaN or infinity in 1 frames" in array_refusal(samples)
    else:
        assert clip_from_array(samples, 16_000).seconds == 30.0


def test_rows_of_different_lengths_are_no_array() -> None:
    with pytest.raises(AudioError, match="rows are of different lengths"):
        clip_from_array([[1.0], [1.0, 2.0]], 16_000)  # type: ignore[list-item]


def test_everything_not_finite() -> None:
    assert "in 1000 frames, the first is frame 0 (0 s)" in array_refusal(np.full(1000, np.nan))


@pytest.mark.parametrize(("peak", "clipped"), [(1.0, False), (1.00001, False), (1.5, True), (1e30, True), (3.4e38, True)])
def test_over_full_scale_is_clipped_and_said(peak: float, clipped: bool) -> None:
    """1.0 is one step over the largest sample: that much is rounding, and no news."""
    samples = np.zeros(1000)
    samples[3], samples[500] = peak, -peak
    clip = clip_from_array(samples, 16_000)
    assert (clip.waveform[[3, 500]] * 32768).tolist() == [32767, -32768]
    assert [("2 of 1000 samples outside -1..1" in line) for line in clip.warnings] == [True] * clipped
    assert sum("another scale" in line for line in clip.warnings) == (peak > 8)
    assert np.isfinite(log_mel(clip.waveform)).all()


def test_denormal_samples_are_silence() -> None:
    assert not clip_from_array(np.full(2000, 5e-324), 44_100).waveform.any()


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 48_000)), "transpose"),
        (np.zeros((10, 0)), "expected [samples] or [samples, channels]"),
        (np.zeros((3, 3, 3)), "shape (3, 3, 3)"),
        (np.float32(1), "shape ()"),
        (np.zeros(1000, np.uint8), "dtype uint8"),
        (np.zeros(1000, np.complex64), "dtype complex64"),
        (np.zeros(1000, bool), "dtype bool"),
        (["a", "b"], "dtype <U1"),
        (np.zeros(0), "holds no sound"),
    ],
)
def test_arrays_of_another_shape_or_type(array: object, said: str) -> None:
    assert said in array_refusal(array)


@pytest.mark.parametrize("rate", [math.nan, math.inf, 16_000.5, "16000", None])
def test_rates_that_are_no_number_of_hertz(rate: float) -> None:
    assert "expected a whole number of Hz" in array_refusal(np.zeros(1000), rate)


def test_whole_float_rates_are_rates() -> None:
    assert clip_from_array(np.zeros(44_100), 44_100.0).seconds == 1  # type: ignore[arg-type]
    assert clip_from_array(np.zeros(44_100), np.int64(44_100)).seconds == 1  # type: ignore[arg-type]
