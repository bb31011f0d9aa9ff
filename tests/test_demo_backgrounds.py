"""Noises and music behind the speech of a training step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")
pytest.importorskip("scipy", reason="for training only; pip install '.[train]'")

from demo import backgrounds  # noqa: E402
from demo.augment import loudness_of  # noqa: E402
from demo.clip_store import FULL_SCALE  # noqa: E402

CPU = torch.device("cpu")
ROWS, SAMPLES = 400, 1000
SPEECH, NOISE, MUSIC = slice(0, 100), slice(100, 190), slice(190, 270)  # in what is heard


def scene(text: str, start: int, samples: int) -> dict[str, object]:
    return {"kind": "scene", "text": text, "start": start, "samples": samples}


BEHIND = backgrounds.places([{"kind": "words", "start": 0, "samples": 100}, scene("noise", 100, 90), scene("music", 190, 80)], CPU)


@pytest.fixture
def heard() -> torch.Tensor:
    """Speech falls, noise rises, music is a zigzag: what is behind a row is known by the step from each sample to the next."""
    falling, rising = -torch.arange(100.0) / 100, (1 + torch.arange(90.0)) / 90
    zigzag = 0.5 * (-1.0) ** torch.arange(80)
    return (torch.cat([falling, rising, zigzag]) * (FULL_SCALE - 1)).to(torch.int16)


def mixed(heard: torch.Tensor, speech: list[int], seed: int) -> tuple[SimpleNamespace, torch.Tensor, torch.Tensor]:
    """A batch whose rows are 600 or 1000 samples long, its waves, and what was added to them."""
    torch.manual_seed(seed)
    batch = SimpleNamespace(speech=torch.tensor(speech, dtype=torch.long), samples=torch.tensor([600, SAMPLES] * (ROWS // 2)))
    waves = 0.1 * (torch.arange(SAMPLES) < batch.samples[:, None]).double()
    return batch, waves, backgrounds.add_backgrounds(waves, batch, heard, BEHIND) - waves


def kind_of(row: torch.Tensor) -> str:
    """What one row's background is made of, told by the signs of the steps between its first 600 samples."""
    steps = row[:600].diff()
    if (steps[1:].sign() == -steps[:-1].sign()).double().mean() > 0.9:
        return "music"
    return "noise" if (steps > 0).double().mean() > 0.9 and row[:600].min() >= 0 else "speech"


def test_only_noise_and_music_of_scenes_may_be_behind() -> None:
    assert {kind: spans.tolist() for kind, spans in BEHIND.items()} == {"noise": [[100, 90]], "music": [[190, 80]]}
    assert not len(backgrounds.places([scene("silence", 0, 5), scene("speech", 0, 5)], CPU)["noise"])


def test_about_a_quarter_of_the_rows_of_speech_have_something_behind_them_and_no_other_row(heard: torch.Tensor) -> None:
    batch, _, added = mixed(heard, list(range(ROWS // 2)), 1)
    changed = added.abs().amax(1) > 0
    assert not changed[ROWS // 2 :].any() and 0.17 < changed[: ROWS // 2].double().mean() < 0.33
    assert not (added * (torch.arange(SAMPLES) >= batch.samples[:, None])).any()


def test_it_is_noise_three_times_in_four_or_music_from_anywhere_to_the_end_of_the_row_and_never_speech(heard: torch.Tensor) -> None:
    batch, _, added = mixed(heard, list(range(ROWS)), 2)
    rows = [row for row in range(ROWS) if added[row].any()]
    kinds = [kind_of(added[row]) for row in rows]
    assert set(kinds) == {"noise", "music"} and 0.6 < kinds.count("noise") / len(kinds) < 0.9
    whole = torch.cat([heard[NOISE], heard[NOISE]]).double()
    firsts = set()
    for row in (row for row, kind in zip(rows, kinds, strict=True) if kind == "noise"):
        part, count = added[row], int(batch.samples[row])
        first = int((part[:90].argmin() * -1) % 90)  # the rise begins where it is least
        expected = whole[(first + torch.arange(count)) % 90]
        assert torch.allclose(part[:count] / part[:count].max(), expected / expected.max(), atol=1e-5)
        firsts.add(first)
    assert len(firsts) > 30


def test_each_kind_is_as_much_fainter_as_is_written(heard: torch.Tensor) -> None:
    batch, waves, added = mixed(heard, list(range(ROWS)), 3)
    below = -20 * (loudness_of(added, batch.samples) / loudness_of(waves, batch.samples)).log10()
    for kind, (least, most) in backgrounds.BELOW.items():
        found = [float(below[row]) for row in range(ROWS) if added[row].any() and kind_of(added[row]) == kind]
        assert least - 1e-3 < min(found) < least + 4 and most - 4 < max(found) < most + 1e-3


def test_without_scenes_or_without_speech_nothing_is_added(heard: torch.Tensor) -> None:
    batch, waves, _ = mixed(heard, list(range(ROWS)), 4)
    assert backgrounds.add_backgrounds(waves, batch, heard, backgrounds.places([], CPU)) is waves
    batch, waves, _ = mixed(heard, [], 4)
    assert backgrounds.add_backgrounds(waves, batch, heard, BEHIND) is waves
