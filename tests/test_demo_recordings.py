"""Scenes cut out of the sounds of games: which files, and what of them. No game is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the demo's scripts read and write sound files with soundfile")
pytest.importorskip("soxr", reason="the demo's scripts resample with soxr")

import soundfile

from demo import recordings
from demo.clip_store import RATE


def written(root: Path, name: str, seconds: float, rate: int = RATE, channels: int = 1, level: float = 0.5) -> Path:
    """A rising tone under the games' folder, so that each of its places is known by its frequency."""
    path = root / recordings.GAMES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    samples = level * np.sin(2 * np.pi * (200 + 50 * time) * time)
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate)
    return path


@pytest.fixture
def games(tmp_path: Path) -> Path:
    for folder in (folder for kinds in (recordings.MUSIC, recordings.NOISE) for folders in kinds.values() for folder in folders):
        (tmp_path / recordings.GAMES / folder).mkdir(parents=True, exist_ok=True)
    for name in ("lincity-ng/music/a/song.ogg", "colobot/music/song.wav", "lincity-ng/sounds/Farm2.wav", "etr/sounds/snow_slide.wav"):
        written(tmp_path, name, 9.0)
    for name in ("lincity-ng/sounds/SportsCroud1.wav", "lincity-ng/sounds/Monument2.wav", "etr/sounds/pickup1.wav"):
        written(tmp_path, name, 1.0)
    (tmp_path / recordings.GAMES / "lincity-ng/sounds/Farm3.wav").touch()  # nothing in it
    return tmp_path


def test_crowds_choirs_jingles_and_empty_files_are_no_noise(games: Path) -> None:
    found = {(kind, test): recordings.sounds_of(games, kind, test) for kind in ("music", "noise") for test in (False, True)}
    names = {key: [str(path.relative_to(games / recordings.GAMES)) for path in paths] for key, paths in found.items()}
    assert names == {
        ("music", False): ["lincity-ng/music/a/song.ogg"],
        ("music", True): ["colobot/music/song.wav"],
        ("noise", False): ["lincity-ng/sounds/Farm2.wav"],
        ("noise", True): ["etr/sounds/snow_slide.wav"],
    }


def test_no_game_is_heard_both_in_training_and_in_the_test_of_a_kind() -> None:
    for kinds in (recordings.MUSIC, recordings.NOISE):
        train, test = ({folder.split("/")[0] for folder in kinds[split]} for split in ("train", "test"))
        assert train and test and not train & test


def test_without_one_game_its_folder_and_what_to_do_are_told(games: Path) -> None:
    (games / recordings.GAMES / "trackballs/music").rmdir()
    with pytest.raises(FileNotFoundError, match=r"^no [^,]*trackballs/music: install their packages"):
        recordings.sounds_of(games, "music", True)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 1)])
def test_a_cut_is_as_long_as_was_asked_for_and_from_anywhere(tmp_path: Path, rate: int, channels: int) -> None:
    path = written(tmp_path, "etr/music/song.wav", 9.0, rate, channels)
    starts = []
    for seed in range(30):
        samples = recordings.cut(path, np.random.default_rng(seed), 2 * RATE)
        assert samples.shape == (2 * RATE,)
        spectrum = np.abs(np.fft.rfft(samples[: RATE // 2]))
        starts.append(2.0 * float(np.argmax(spectrum)))  # Hz; the tone rises by 100 Hz a second
    assert 195 < min(starts) < 400 and 750 < max(starts) < 950


def test_a_short_sound_comes_again_after_pauses(tmp_path: Path) -> None:
    path = written(tmp_path, "etr/sounds/tree_hit.wav", 0.4)
    samples = recordings.cut(path, np.random.default_rng(3), 4 * RATE)
    once, _ = soundfile.read(path)
    assert len(samples) == 4 * RATE and np.array_equal(samples[: len(once)], once)
    silent = np.flatnonzero(np.diff(np.concatenate([[0], samples == 0.0, [0]]).astype(int)) == 1)
    assert len(silent) > 3


def test_a_recorded_scene_is_no_pause_and_says_where_it_is_from(games: Path) -> None:
    voice, samples = recordings.recorded(games, "noise", np.random.default_rng(1), 3 * RATE, False)
    assert voice == "lincity-ng/sounds/Farm2.wav" and samples.shape == (3 * RATE,)
    decibels = 10 * np.log10(np.mean(samples**2))
    assert -35 <= decibels <= -12 and np.abs(samples).max() <= 0.99
    written(games, "etr/sounds/ice_slide.wav", 9.0, level=1e-4)
    (games / recordings.GAMES / "etr/sounds/snow_slide.wav").unlink()
    recordings.sounds_of.cache_clear()
    with pytest.raises(ValueError, match="20 cuts of noise were pauses"):
        recordings.recorded(games, "noise", np.random.default_rng(1), RATE, True)
