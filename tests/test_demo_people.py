"""Speech that nobody wrote down: where it is found, what becomes its label, and what of it is learned. No package is needed."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the demo's scripts read and write sound files with soundfile")
pytest.importorskip("soxr", reason="the demo's scripts resample with soxr")

import soundfile

from demo import people
from demo.clip_store import RATE, read_clip, read_labels


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    share = tmp_path / people.SHARE
    for speaker in (*people.PROMPTS, "es_MX_f_Allison"):
        (share / "asterisk/sounds" / speaker / "digits").mkdir(parents=True)
        (share / "asterisk/sounds" / speaker / "digits/1.g722").write_bytes(bytes(RATE // 2))
    for language in ("cs", "nl", "en"):
        folder = share / people.FISHES / "gods" / language
        folder.mkdir(parents=True)
        soundfile.write(folder / "hello.ogg", np.stack([tone(1.0, 22050)] * 2, axis=1), 22050)
    return tmp_path


def test_prompts_are_of_three_speakers_and_none_of_the_tests(root: Path) -> None:
    found = list(people.prompts(root))
    assert [speaker for speaker, _ in found] == list(people.PROMPTS) and not any("Allison" in speaker for speaker, _ in found)
    assert all(len(samples) == RATE and np.abs(samples).max() <= 1 for _, samples in found)


def test_the_fishes_speak_two_languages_at_any_rate(root: Path) -> None:
    found = list(people.fishes(root))
    assert [speaker for speaker, _ in found] == ["fillets cs", "fillets nl"]
    assert all(len(samples) == pytest.approx(RATE, rel=1e-3) for _, samples in found)


def test_what_is_on_some_of_the_stamps_is_named_in_many_languages(tmp_path: Path) -> None:
    folder = tmp_path / people.SHARE / people.STAMPS / "animals"
    folder.mkdir(parents=True)
    for name in ("cat", "cat_desc", "cat_desc_fr", *(f"cow{number}_desc_el" for number in range(people.EVERY))):
        soundfile.write(folder / f"{name}.ogg", tone(1.0, 22050), 22050)
    assert [speaker for speaker, _ in people.stamps(tmp_path)] == ["stamps en", "stamps el"]


def test_voices_of_games_are_chosen_by_their_names_and_no_game_may_be_missing(tmp_path: Path) -> None:
    for folder in people.VOICES:
        (tmp_path / people.SHARE / folder).mkdir(parents=True)
    for name in ("tank/tank.ready", "tank/tank.die"):
        (tmp_path / people.SHARE / "games/boswars/units/tank").mkdir(exist_ok=True)
        soundfile.write(tmp_path / people.SHARE / f"games/boswars/units/{name}.wav", tone(1.0), RATE)
    soundfile.write(tmp_path / people.SHARE / "gigalomania/sound/we_ve_won.wav", tone(2.0), RATE)
    found = [(who, len(samples) // RATE) for who, samples in people.voices(tmp_path)]
    assert found == [("games/boswars/units/tank", 1), ("gigalomania/sound", 2)]
    (tmp_path / people.SHARE / "games/netpanzer/sound").rmdir()
    with pytest.raises(FileNotFoundError, match=r"no games/netpanzer/sound; install their packages"):
        list(people.voices(tmp_path))


@pytest.mark.skipif("MP3" not in soundfile.available_formats(), reason="libsndfile reads MP3 from 1.1 on")
def test_spoken_lines_are_found_by_their_index(tmp_path: Path) -> None:
    """Two lines and a picture, each behind its name of 12 bytes, a byte, where it starts and its size, both big-endian."""
    sounds = []
    for seconds in (1.0, 2.0):
        sounds.append(io.BytesIO())
        soundfile.write(sounds[-1], tone(seconds, 11025), 11025, format="MP3", subtype="MPEG_LAYER_III")
    one, two = (sound.getvalue() for sound in sounds)
    entries, now, begin = [], 0, 200
    for name, data in ((b"020001P2.SB", one), (b"PICTURE.PCX", b"\n" * 50), (b"59001FP3.SB", two)):
        entries.append(name + b"\0\1" + (begin + now).to_bytes(4, "big") + len(data).to_bytes(4, "big"))
        now += len(data)
    path = tmp_path / people.SHARE / people.QUEEN
    path.parent.mkdir(parents=True)
    path.write_bytes((b"QTBL" + b"".join(entries)).ljust(begin, b"\0") + one + b"\n" * 50 + two)
    lengths = [len(samples) / RATE for _, samples in people.queen(tmp_path)]
    assert lengths == pytest.approx([1.0, 2.0], abs=0.3)  # MP3 fills up its last blocks


def test_what_the_model_hears_is_the_label_and_no_clip_is_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[np.ndarray] = []

    def generate(prompt: str, samples: np.ndarray, **options: Any) -> Any:
        asked.append(samples)
        return SimpleNamespace(text="<|0.10|>some  thing ")

    spoken = [("a", tone(seconds)) for seconds in (0.3, 1.0, 2.0, 20.0, 3.0)]  # the first and the last but one are of no use
    monkeypatch.setitem(people.SOURCES, "people_prompts", lambda root: iter(spoken))
    arguments = argparse.Namespace(data=tmp_path, root=tmp_path, clips=2)
    for _ in range(2):
        people.write("people_prompts", arguments, SimpleNamespace(generate=generate))
    labels = read_labels(tmp_path / "clips/people_prompts.jsonl")
    told = {name: [label[name] for label in labels] for name in ("kind", "text", "words", "split")}
    assert told == {"kind": ["heard"] * 2, "text": ["some thing"] * 2, "words": [None] * 2, "split": ["train"] * 2}
    assert len(asked) == 2 and [label["seconds"] for label in labels] == pytest.approx([1.0, 2.0], abs=0.2)
    assert np.mean(read_clip(tmp_path / labels[0]["file"]) ** 2) == pytest.approx(10**-2.3, rel=0.02)


def test_a_source_without_its_package_is_no_empty_source(tmp_path: Path) -> None:
    arguments = argparse.Namespace(data=tmp_path / "data", root=tmp_path, clips=2)
    for source in people.SOURCES:
        with pytest.raises(FileNotFoundError):
            people.write(source, arguments, SimpleNamespace())
    with pytest.raises(FileNotFoundError, match=r"nothing of people_fishes; install its packages"):
        people.write("people_fishes", arguments, SimpleNamespace())
    assert not (tmp_path / "data").exists()
