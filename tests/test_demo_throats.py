"""Frequencies moved within a spectrogram."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import throats  # noqa: E402
from demo.front_end import log_mel  # noqa: E402
from qwenaudio_np.mel import hz_to_mel, mel_to_hz  # noqa: E402

SECOND = np.arange(16000) / 16000


def spectrum(hertz: float) -> torch.Tensor:
    """[1, 80, 100] of a tone."""
    return log_mel(torch.from_numpy(0.3 * np.sin(2 * np.pi * hertz * SECOND)).float()[None], torch.tensor([100]))


@pytest.mark.parametrize(("hertz", "factor"), [(500.0, 1.15), (1500.0, 0.87), (3000.0, 1.1), (3000.0, 0.9)])
def test_a_tone_is_heard_at_the_factor_times_its_frequency(hertz: float, factor: float) -> None:
    found = throats.moved(spectrum(hertz), torch.tensor([factor]))[0, :, 50]
    assert abs(int(found.argmax()) - int(spectrum(hertz * factor)[0, :, 50].argmax())) <= 1
    assert int(found.argmax()) != int(spectrum(hertz)[0, :, 50].argmax())


def test_the_factor_1_moves_nothing() -> None:
    mel = torch.randn(2, 80, 7)
    assert torch.allclose(throats.moved(mel, torch.ones(2)), mel, atol=1e-5)


@pytest.mark.parametrize("factor", [1 / throats.MOST, 0.95, 1.05, throats.MOST])
def test_jaitly_and_hintons_map_brings_each_origin_to_its_band(factor: float) -> None:
    """Their equation, the other way round: up to the bend f -> factor f, from there a line to the highest frequency."""
    edges = mel_to_hz(np.linspace(0.0, float(hz_to_mel(np.array(8000.0))), 82))
    places = throats.origins(np.array([factor]))[0]
    hertz = mel_to_hz((places + 1.0) * hz_to_mel(np.array(8000.0)) / 81)
    bend = throats.BEND * min(factor, 1.0) / factor
    forward = np.where(hertz <= bend, factor * hertz, 8000.0 - (8000.0 - factor * bend) / (8000.0 - bend) * (8000.0 - hertz))
    inside = (places > 0.0) & (places < 79.0)
    assert inside.sum() > 76 and np.allclose(forward[inside], edges[1:-1][inside], rtol=1e-9)
    assert hertz[inside].max() > bend and (np.diff(places) >= 0).all()


def test_only_speech_is_moved_and_about_as_much_of_it_as_is_told() -> None:
    torch.manual_seed(0)
    mel = torch.randn(300, 80, 3)
    found = throats.other_throats(mel, torch.arange(100, 300))
    same = (found == mel).all(2).all(1)
    assert same[:100].all() and abs(same[100:].float().mean().item() - (1 - throats.SHARE)) < 0.15  # 4 standard deviations of 200 draws


def test_without_speech_all_stays() -> None:
    mel = torch.randn(2, 80, 3)
    assert torch.equal(throats.other_throats(mel, torch.tensor([], dtype=torch.long)), mel)
