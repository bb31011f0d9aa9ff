"""Frequencies moved within a spectrogram."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import throats  # noqa: E402
from demo.front_end import log_mel  # noqa: E402

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


def test_the_order_of_the_bands_stays_and_the_highest_stays_where_it_is() -> None:
    places = throats.origins(np.array([1 / throats.LONGEST, 0.95, 1.05, throats.LONGEST]))
    assert (np.diff(places) >= 0).all() and (places >= 0).all() and (abs(places[:, -1] - 79) < 1).all()


def test_only_speech_is_moved_and_about_as_much_of_it_as_is_told() -> None:
    torch.manual_seed(0)
    mel = torch.randn(300, 80, 3)
    found = throats.other_throats(mel, torch.arange(100, 300))
    same = (found == mel).all(2).all(1)
    assert same[:100].all() and abs(same[100:].float().mean().item() - (1 - throats.MOVED)) < 0.15  # 4 standard deviations of 200 draws


def test_without_speech_all_stays() -> None:
    mel = torch.randn(2, 80, 3)
    assert torch.equal(throats.other_throats(mel, torch.tensor([], dtype=torch.long)), mel)
