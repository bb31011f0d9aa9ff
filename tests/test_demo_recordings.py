"""Scenes cut out of the sounds of games: which files, and what of them. No game is needed."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the demo's scripts read and write sound files with soundfile")
pytest.importorskip("soxr", reason="the demo's scripts resample with soxr")

import soundfile

from demo import recordings, scenes
from demo.clip_store import RATE


def written(root: Path, name: str, seconds: float, rate: int = RATE, channels: int = 1, level: float = 0.5) -> Path:
    """A rising tone under the folder that games share, so that each of its places is known by its frequency."""
    path = root / recordings.SHARE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    samples = level * np.sin(2 * np.pi * (200 + 50 * time) * time)
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate)
    return path


@pytest.fixture
def games(tmp_path: Path) -> Path:
    for folder in (folder for kinds in (recordings.MUSIC, recordings.NOISE) for folders in kinds.values() for folder in folders):
        (tmp_path / recordings.SHARE / folder).mkdir(parents=True, exist_ok=True)
    songs = ("games/lincity-ng/music/a/song.ogg", "games/flare/mods/fantasycore/music/wind_ambient.ogg", "games/colobot/music/song.wav")
    others = ("games/frogatto/modules/frogatto/music/Cave/song.ogg", "games/frogatto/modules/frogatto/sounds/fan.wav")
    for name in (*songs, *others, "games/lincity-ng/sounds/Farm2.wav", "games/etr/sounds/snow_slide.wav"):
        written(tmp_path, name, 9.0)
    for name in ("games/lincity-ng/sounds/SportsCroud1.wav", "games/lincity-ng/sounds/Monument2.wav", "games/etr/sounds/pickup1.wav"):
        written(tmp_path, name, 1.0)
    (tmp_path / recordings.SHARE / "games/lincity-ng/sounds/Farm3.wav").touch()  # nothing in it
    return tmp_path


def test_crowds_choirs_jingles_and_empty_files_are_no_noise(games: Path) -> None:
    found = {(kind, test): recordings.sounds_of(games, kind, test) for kind in ("music", "noise") for test in (False, True)}
    names = {key: [str(path.relative_to(games / recordings.SHARE)) for path in paths] for key, paths in found.items()}
    assert names == {
        ("music", False): ["games/lincity-ng/music/a/song.ogg"],
        ("music", True): ["games/colobot/music/song.wav"],
        ("noise", False): ["games/lincity-ng/sounds/Farm2.wav"],
        ("noise", True): ["games/etr/sounds/snow_slide.wav"],
    }


def test_the_second_test_has_its_own_sounds(games: Path) -> None:
    written(games, "games/frogatto/modules/frogatto/sounds/coin.wav", 1.0)
    for kind, name in (("other_music", "music/Cave/song.ogg"), ("other_noise", "sounds/fan.wav")):
        voice, _ = scenes.maker(kind, games, games)(np.random.default_rng(1), RATE, True)
        assert voice == f"games/frogatto/modules/frogatto/{name}"


def test_no_game_is_heard_in_two_of_training_test_and_second_test() -> None:
    for kinds in (recordings.MUSIC, recordings.NOISE):
        games_ = [{folder.removeprefix("games/").split("/")[0] for folder in kinds[part]} for part in ("train", "test", "other")]
        assert all(games_) and not any(first & second for first, second in itertools.combinations(games_, 2))


def test_without_one_game_its_folder_and_what_to_do_are_told(games: Path) -> None:
    (games / recordings.SHARE / "games/trackballs/music").rmdir()
    with pytest.raises(FileNotFoundError, match=r"usr/share: no games/trackballs/music; install their packages"):
        recordings.sounds_of(games, "music", True)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 1)])
def test_a_cut_is_as_long_as_was_asked_for_and_from_anywhere(tmp_path: Path, rate: int, channels: int) -> None:
    path = written(tmp_path, "games/etr/music/song.wav", 9.0, rate, channels)
    starts = []
    for seed in range(30):
        samples = recordings.cut([path], np.random.default_rng(seed), 2 * RATE)
        assert samples.shape == (2 * RATE,)
        spectrum = np.abs(np.fft.rfft(samples[: RATE // 2]))
        starts.append(2.0 * float(np.argmax(spectrum)))  # Hz; the tone rises by 100 Hz a second
    assert 195 < min(starts) < 400 and 750 < max(starts) < 950


def test_a_short_sound_comes_again_after_pauses(tmp_path: Path) -> None:
    path = written(tmp_path, "games/etr/sounds/tree_hit.wav", 0.4)
    samples = recordings.cut([path], np.random.default_rng(3), 4 * RATE)
    once, _ = soundfile.read(path)
    assert len(samples) == 4 * RATE and np.array_equal(samples[: len(once)], once)
    silent = np.flatnonzero(np.diff(np.concatenate([[0], samples == 0.0, [0]]).astype(int)) == 1)
    assert len(silent) > 3


def test_a_short_sound_may_be_followed_by_those_of_its_folder(tmp_path: Path) -> None:
    first, other = written(tmp_path, "a.wav", 0.4), written(tmp_path, "b.wav", 0.3, level=0.25)
    samples = recordings.cut([first, other], np.random.default_rng(3), 8 * RATE)
    assert np.abs(samples[: 2 * RATE // 5]).max() > 0.49
    heard = [np.abs(part).max() for part in np.split(samples, 80)]
    assert max(heard) > 0.49 and sum(0.24 < peak < 0.26 for peak in heard) > 5


def test_a_cut_played_faster_is_higher_and_shorter(tmp_path: Path) -> None:
    path = written(tmp_path, "tone.wav", 1.0)
    slow, fast = (recordings.read_part(path, np.random.default_rng(1), 4 * RATE, speed) for speed in (1.0, 1.25))
    assert abs(len(fast) / len(slow) - 0.8) < 0.01
    pitches = [np.argmax(np.abs(np.fft.rfft(part[: len(part) // 5], RATE))) for part in (slow, fast)]
    assert abs(pitches[1] / pitches[0] - 1.25) < 0.03


def test_the_noises_of_training_are_layered_now_and_then_those_of_the_test_never(games: Path) -> None:
    for test, voice in ((False, "games/lincity-ng/sounds/Farm2.wav"), (True, "games/etr/sounds/snow_slide.wav")):
        voices = [recordings.recorded(games, "noise", np.random.default_rng(seed), RATE, test)[0] for seed in range(20)]
        assert set(voices) == ({voice} if test else {voice, f"{voice}, {voice}"})


def test_a_recorded_scene_is_no_pause_and_says_where_it_is_from(games: Path) -> None:
    voice, samples = recordings.recorded(games, "noise", np.random.default_rng(1), 3 * RATE, False)
    assert voice == "games/lincity-ng/sounds/Farm2.wav" and samples.shape == (3 * RATE,)
    decibels = 10 * np.log10(np.mean(samples**2))
    assert -35 <= decibels <= -12 and np.abs(samples).max() <= 0.99
    written(games, "games/etr/sounds/ice_slide.wav", 9.0, level=1e-4)
    (games / recordings.SHARE / "games/etr/sounds/snow_slide.wav").unlink()
    recordings.sounds_of.cache_clear()
    with pytest.raises(ValueError, match="20 cuts of noise were pauses"):
        recordings.recorded(games, "noise", np.random.default_rng(1), RATE, True)
