"""The log-mel spectrogram against the original's, against a slow twin, and against values worked by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from qwenaudio_np.audio import load_clip
from qwenaudio_np.errors import AudioError
from qwenaudio_np.mel import hz_to_mel, log_mel, mel_filters, mel_to_hz, power_spectrum

Array = NDArray[np.float64]


# --- a slow twin: no FFT, no strides, filters by interpolation ----------------------------------------------------


def twin_power(padded: Array) -> Array:
    """[480000] -> [3000, 201]: every sample of every window looked up by its index, the DFT as two matrices."""
    last = len(padded) - 1
    offsets = np.arange(400) - 200
    phase = 2 * math.pi * np.outer(np.arange(400), np.arange(201)) / 400
    cosine, sine = np.cos(phase), np.sin(phase)
    window = np.array([math.sin(math.pi * n / 400) ** 2 for n in range(400)])  # Hann as a squared sine
    rows = []
    for frame in range(3000):
        index = np.abs(160 * frame + offsets)  # mirrored at the first sample
        index = np.where(index > last, 2 * last - index, index)  # and at the last
        rows.append(padded[index] * window)
    framed = np.stack(rows)
    return (framed @ cosine) ** 2 + (framed @ sine) ** 2


def twin_mel(hz: float) -> float:
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000, 6.4)


def twin_hz(mel: float) -> float:
    """The inverse by bisection, so that it cannot share a slip with the formula."""
    low, high = 0.0, 10_000.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if twin_mel(middle) < mel else (low, middle)
    return low


def twin_filters(n_mels: int) -> Array:
    top = twin_mel(8000.0)
    edges = [twin_hz(top * k / (n_mels + 1)) for k in range(n_mels + 2)]
    bins = [40.0 * k for k in range(201)]
    return np.array([np.interp(bins, edges[m : m + 3], [0, 2 / (edges[m + 2] - edges[m]), 0], 0, 0) for m in range(n_mels)])


def twin_log_mel(waveform: Array, n_mels: int = 80) -> Array:
    padded = np.concatenate([waveform, np.zeros(480_000 - len(waveform))])
    log = np.log(np.maximum(twin_filters(n_mels) @ twin_power(padded).T, 1e-10)) / math.log(10)
    return (np.maximum(log, np.max(log) - 8) + 4) / 4


# --- the truths ---------------------------------------------------------------------------------------------------


def golden_clips(golden: Path) -> list[tuple[str, Path, Path, int]]:
    """(label, sound file, expected tensors, k) of every clip of every case that has one."""
    found = []
    for case in sorted(golden.glob("*/cases/*/case.json")):
        for k, name in enumerate(json.loads(case.read_text(encoding="utf-8"))["audio"] or []):
            found.append((f"{case.parent.name}.{k}", golden / name, case.with_name("expected.safetensors"), k))
    return found


def test_golden_mels(golden: Path) -> None:
    """Within 5e-4 of the RMS everywhere, and exactly 2T frames: the original's float32 FFT is that noisy near the floor."""
    clips = golden_clips(golden)
    assert len(clips) == 16
    for label, path, expected, k in clips:
        clip = load_clip(path)
        with safe_open(expected, "numpy") as tensors:
            want = tensors.get_tensor(f"audio.{k}.mel")
            vectors = len(tensors.get_tensor(f"audio.{k}.ln_post"))
        assert want.shape == (80, 2 * clip.positions), label
        assert vectors == clip.vectors, label
        got = log_mel(clip.waveform)[:, : want.shape[1]]
        assert got.dtype == np.float32
        rms = math.sqrt(np.mean(want.astype(np.float64) ** 2))
        assert np.abs(got - want).max() <= 5e-4 * rms, label


def test_speech_agrees_with_the_twin(speech: Path) -> None:
    waveform = load_clip(speech).waveform
    got = log_mel(waveform, dtype=np.float64)
    assert got.shape == (80, 3000)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, twin_log_mel(waveform.astype(np.float64)), rtol=0, atol=1e-9)


def test_full_30_seconds_agree_with_the_twin() -> None:
    """No zeros at the end: the last frames see the mirrored end."""
    waveform = np.random.default_rng(3).normal(size=480_000) * 0.1
    np.testing.assert_allclose(log_mel(waveform, 128, np.float64), twin_log_mel(waveform, 128), rtol=0, atol=1e-9)


@pytest.mark.parametrize("n_mels", [8, 40, 80, 128])
def test_filters_agree_with_the_twin(n_mels: int) -> None:
    filters = mel_filters(n_mels)
    assert filters.shape == (n_mels, 201)
    np.testing.assert_allclose(filters, twin_filters(n_mels), rtol=0, atol=1e-13)


def test_filters_are_shared_and_cannot_be_changed() -> None:
    assert mel_filters(80) is mel_filters(80)
    with pytest.raises(ValueError, match="read-only"):
        mel_filters(80)[0, 0] = 1.0


def test_float32_is_the_float64_result_rounded_once() -> None:
    waveform = np.random.default_rng(0).normal(size=5000)
    np.testing.assert_array_equal(log_mel(waveform), log_mel(waveform, dtype=np.float64).astype(np.float32))


@pytest.mark.parametrize("shape", [(480_001,), (2, 1000), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match="at most 480000"):
        log_mel(np.zeros(shape))


# --- worked by hand -----------------------------------------------------------------------------------------------


def test_mel_scale_by_hand() -> None:
    """200/3 Hz a mel up to 1000 Hz = 15 mel; 27 mel more is 6.4 times the frequency."""
    hz = np.array([0.0, 200.0, 1000.0, 6400.0])
    np.testing.assert_allclose(hz_to_mel(hz), [0, 3, 15, 42], atol=1e-12)
    np.testing.assert_allclose(mel_to_hz(np.array([0.0, 3.0, 15.0, 42.0])), hz, atol=1e-9)


def test_first_filter_by_hand() -> None:
    """80 filters need 82 edges: 8000 Hz = 15 + 27 ln(8) / ln(6.4) = 45.2456 mel, an 81st of it 0.558588 mel = 37.2392 Hz.

    Filter 0 reaches from 0 to 74.4784 Hz, so its height is 2 / 74.4784 = 0.0268534; at bin 1 (40 Hz) it has fallen
    to (74.4784 - 40) / 37.2392 = 0.925863 of that.
    """
    first = mel_filters(80)[0]
    assert first[1] == pytest.approx(0.0268534 * 0.925863, rel=1e-5)
    assert np.count_nonzero(first) == 1


def test_silence_by_hand() -> None:
    """log10(1e-10) = -10, which is its own maximum, and (-10 + 4) / 4 = -1.5."""
    np.testing.assert_array_equal(log_mel(np.zeros(1000)), np.full((80, 3000), -1.5, np.float32))


# --- what porters got wrong ---------------------------------------------------------------------------------------


def test_mistake_framing_off_by_one() -> None:
    """A click on sample 1600 is the middle of frame 10, where the periodic window is 1.

    Frames 9 and 11 see it 160 samples from their middle: 0.5 + 0.5 cos(2 pi 160 / 400) = 0.0954915, squared 0.00911863.
    A symmetric window, an uncentred STFT or a dropped first frame all give something else.
    """
    click = np.zeros(480_000)
    click[1600] = 1.0
    power = power_spectrum(click)
    assert power.shape == (3000, 201)
    np.testing.assert_allclose(power[10], 1.0, rtol=1e-12)
    np.testing.assert_allclose(power[[9, 11]], 0.00911863, rtol=1e-5)
    assert not power[:9].any()
    assert not power[12:].any()


def test_mistake_start_padded_with_zeros_instead_of_mirrored() -> None:
    """A click on sample 40 is also seen on -40: together 2 w cos(2 pi 40 f / 400), with w = 0.5 + 0.5 cos(2 pi 40 / 400)."""
    click = np.zeros(480_000)
    click[40] = 1.0
    weight = 0.5 + 0.5 * math.cos(2 * math.pi * 40 / 400)
    want = [(2 * weight * math.cos(2 * math.pi * 40 * f / 400)) ** 2 for f in range(201)]
    np.testing.assert_allclose(power_spectrum(click)[0], want, rtol=0, atol=1e-12)


def test_mistake_filters_not_normalised() -> None:
    """Slaney's triangles have area 1 (half the base times 2 / base); without that the widest would be 14 times too loud.

    The sum over bins 40 Hz apart is the area once a filter is several bins wide.
    """
    area = 40.0 * mel_filters(80).sum(axis=1)
    np.testing.assert_allclose(area[60:], 1.0, rtol=0.02)


def test_mistake_filters_on_the_htk_scale() -> None:
    """On HTK's scale, 2595 log10(1 + f / 700), the 41st filter would peak near 1806 Hz; on Slaney's it is at 22.9 mel = 1722 Hz."""
    centre = 1000 * 6.4 ** ((45.2456 * 41 / 81 - 15) / 27)
    assert 40 * int(np.argmax(mel_filters(80)[40])) == pytest.approx(centre, abs=20)
    low, high = 40 * np.flatnonzero(mel_filters(80)[40])[[0, -1]]
    assert high - low < 120  # between its neighbours' centres, 1657 and 1789 Hz


def test_mistake_maximum_over_the_unpadded_clip() -> None:
    """A click just before the end is loudest in frame 11, which is centred in the padding and not the clip's own.

    1750 samples have 10 frames of their own. The click on 1745 is 145 samples from the middle of frame 10 and 15 from
    that of frame 11. A click has the same power p in every bin, so the loudest mel is p times the largest filter sum.
    """
    clip = np.random.default_rng(0).normal(size=1750) * 1e-7
    clip[1745] = 1.0
    got = log_mel(clip, dtype=np.float64)
    power = (0.5 + 0.5 * math.cos(2 * math.pi * 15 / 400)) ** 2
    loudest = math.log10(power * twin_filters(80).sum(axis=1).max())
    assert got.max() == pytest.approx((loudest + 4) / 4, abs=1e-5)
    assert got.min() == pytest.approx((loudest - 8 + 4) / 4, abs=1e-5)
    assert got[:, :10].max() < got.max() - 0.1


def test_mistake_features_padded_instead_of_audio() -> None:
    """The clip's end meets zeros, not its own mirror image, and frames of pure padding lie at the floor, not at 0."""
    clip = np.sin(2 * np.pi * 1000 * np.arange(1600) / 16_000)
    got = log_mel(clip, dtype=np.float64)
    floor = got.max() - 2.0  # 8 / 4
    np.testing.assert_allclose(got[:, 12:], floor, rtol=0, atol=1e-12)
    assert floor < -0.4
    # Frame 10 is centred on the end. The half window with the tone, half of a 1000 Hz amplitude: a quarter of the power.
    bin_25 = power_spectrum(np.pad(clip, (0, 480_000 - 1600)))[[5, 10], 25]
    assert bin_25[1] == pytest.approx(bin_25[0] / 4, rel=0.02)
