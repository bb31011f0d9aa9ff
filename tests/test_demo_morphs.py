"""One voice made into others: what is given to the vocoder, changed by hand. No synthesiser is needed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the demo's scripts read and write sound files with soundfile")
pytest.importorskip("soxr", reason="the demo's scripts resample with soxr")

from demo.morphs import Speaker, drawn, morphed

PITCH = np.array([0.0, 100.0, 200.0, 400.0, 0.0], np.float32)


def parts() -> list[np.ndarray]:
    """Five spectra that rise by 1 from bin to bin, and a pitch."""
    return [*np.repeat(np.arange(601, dtype=np.float32)[None, :, None], 5, 0).repeat(5, 2), PITCH]


def test_the_voice_itself_stays_as_it_is() -> None:
    for before, after in zip(parts(), morphed(parts(), Speaker(1.0, 1.0, 1.0, 0.0)), strict=True):
        assert after.shape == before.shape and after.dtype == np.float32 and np.allclose(after, before, rtol=1e-6)


def test_formants_move_and_the_pitch_stays() -> None:
    """With a throat a quarter longer, bin 80 holds what bin 100 held; what lies above the highest bin is that bin's."""
    *spectra, pitch = morphed(parts(), Speaker(1.0, 1.0, 0.8, 0.0))
    assert np.allclose(pitch, PITCH)
    for spectrum in spectra:
        assert (spectrum[80] == 100).all() and (spectrum[-1] == 600).all()


def test_pitch_moves_about_its_mean_and_silence_has_none() -> None:
    lower = morphed(parts(), Speaker(0.5, 1.0, 1.0, 0.0))[-1]
    flat = morphed(parts(), Speaker(1.0, 0.0, 1.0, 0.0))[-1]
    lively = morphed(parts(), Speaker(1.0, 2.0, 1.0, 0.0))[-1]
    assert lower == pytest.approx(PITCH / 2)
    assert flat == pytest.approx([0, 200, 200, 200, 0])
    assert lively == pytest.approx([0, 50, 200, 800, 0])


def test_tilt_changes_loudness_and_no_phase() -> None:
    """In decibels from the lowest bin to the highest."""
    changed = morphed(parts(), Speaker(1.0, 1.0, 1.0, -6.0))
    for number in range(5):
        fall = changed[number][600, 0] - parts()[number][600, 0]
        assert fall == pytest.approx(-6.0 * np.log(10) / 20 if number in (0, 2, 3) else 0.0, abs=1e-4)
        assert changed[number][0, 0] == 0.0


def test_speakers_differ_and_stay_within_what_throats_there_are() -> None:
    speakers = [drawn(np.random.default_rng(seed)) for seed in range(200)]
    assert len(set(speakers)) == 200
    assert all(0.42 <= speaker.pitch <= 1.8 and 0.78 <= speaker.formants <= 1.2 for speaker in speakers)
    assert np.corrcoef([speaker.pitch for speaker in speakers], [speaker.formants for speaker in speakers])[0, 1] > 0.7
