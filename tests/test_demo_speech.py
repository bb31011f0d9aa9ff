"""The clips of the training speech: their format, and that a clip depends on its source and index alone. No synthesiser is needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the demo's scripts read and write sound files with soundfile")
pytest.importorskip("soxr", reason="the demo's scripts resample with soxr")

import soundfile

from demo.neural_voices import KOKORO_ENGLISH, KOKORO_JAPANESE, mixed
from demo.speech import LONGEST, SHORTEST, SOURCES, Source, write
from demo.texts import is_held_out
from demo.voices import RATE, RHVoice, Speech

NUMBERS = ["abcdefghijkl"[index % 12] * (index + 3) for index in range(60)]
PIECES = [(f"this is piece number {number}", f"This is piece number {number}.") for number in NUMBERS]


class Hummer:
    """Says each letter as 60 ms of a tone, between two silences."""

    speakers = ("low", "high")

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        samples = np.sin(np.arange(len(line) * RATE * 6 // 100) * rng.uniform(0.1, 0.5)) * 0.4
        return Speech(np.pad(samples, 4000).astype(np.float32), f"hummer-{speaker}")


def source(kind: str, **changes: object) -> Source:
    return replace(Source(f"hummer-{kind}", Hummer, kind, 9.0, clips=30, warp=0.5), **changes)  # type: ignore[arg-type]


def records(data: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (data / "clips" / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", ["read", "words"])
def test_clips_are_as_their_lines_say(tmp_path: Path, kind: str) -> None:
    write(source(kind), PIECES, tmp_path, float("inf"))
    lines = records(tmp_path, f"hummer-{kind}")
    assert len(lines) == 30
    for line in lines:
        samples, rate = soundfile.read(tmp_path / line["file"])
        info = soundfile.info(tmp_path / line["file"])
        assert (rate, info.channels, info.subtype, info.format) == (RATE, 1, "PCM_16", "FLAC")
        assert len(samples) / RATE == pytest.approx(line["seconds"], abs=1e-3)
        assert SHORTEST <= line["seconds"] <= LONGEST
        assert (line["kind"], line["split"]) == (kind, "train")
        if line["words"] is not None:
            assert [word for word, _, _ in line["words"]] == line["text"].split()
    assert {line["voice"] for line in lines} == {"hummer-low", "hummer-high"}
    assert any(line["words"] for line in lines) == (kind == "words")


def test_snippets_are_one_to_four_words_that_follow_each_other_in_a_piece(tmp_path: Path) -> None:
    write(source("snippets"), PIECES, tmp_path, float("inf"))
    lines = records(tmp_path, "hummer-snippets")
    assert {len(line["text"].split()) for line in lines} == {1, 2, 3, 4}
    assert all(any(f" {line['text']} " in f" {text} " for text, _ in PIECES) for line in lines)
    assert all((line["kind"], line["words"]) == ("words", None) for line in lines)


def test_a_resumed_run_writes_the_same_clips(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    write(source("words"), PIECES, whole, float("inf"))
    for clips in (7, 30):
        write(source("words", clips=clips), PIECES, parts, float("inf"))
    assert records(whole, "hummer-words") == records(parts, "hummer-words")
    for line in records(whole, "hummer-words"):
        assert (whole / line["file"]).read_bytes() == (parts / line["file"]).read_bytes()


def test_test_voices_read_what_no_training_voice_reads(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(source("read", name=split, split=split, clips=10), PIECES, tmp_path, float("inf"))
    assert all(is_held_out(line["text"]) == (split == "test") for split in ("train", "test") for line in records(tmp_path, split))


def test_no_speaker_is_in_both_splits() -> None:
    names = {source.name for source in SOURCES}
    assert len(names) == len(SOURCES)
    speakers: dict[str, set[tuple[object, ...]]] = {"train": set(), "test": set()}
    for entry in SOURCES:
        arguments = getattr(entry.voice, "args", None)
        kind = getattr(entry.voice, "func", entry.voice)
        speakers[entry.split] |= {(kind, name) for name in (arguments[0] if arguments else kind.speakers)}
    assert speakers["train"] and speakers["test"] and not speakers["train"] & speakers["test"]
    persons = {"cmu_us_slt_arctic_hts": "slt", "kal_diphone": "kal", "kal16": "kal", "ked_diphone": "ked"}  # one person, several programs
    train, test = ({persons.get(str(name), name) for _, name in speakers[split]} for split in ("train", "test"))
    assert not train.union(KOKORO_ENGLISH, KOKORO_JAPANESE) & test


def test_a_line_that_rhvoice_has_nothing_to_say_for_gives_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "RHVoice-test"  # the real one writes no file then
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ValueError, match=r"nothing to say for '_\.'"):
        RHVoice(("bdl",)).say("_.", "bdl", np.random.default_rng(1))


def test_a_mixture_lies_among_its_speakers_or_a_little_beyond() -> None:
    styles = [np.full((5, 256), level, np.float32) for level in (0.0, 1.0, 3.0)]
    found = [mixed(styles, np.random.default_rng(seed), 1.0) for seed in range(200)]
    levels = np.array([style[0, 0] for style in found])
    assert all(style.shape == (5, 256) and np.ptp(style) < 1e-6 for style in found)
    assert -0.4 <= levels.min() < 0.3 and 2.5 < levels.max() <= 3.5  # -0.1 of the furthest speakers, or 1.2 of one of them
    np.testing.assert_allclose(mixed([styles[1]] * 3, np.random.default_rng(1), 1.0), 1.0, rtol=1e-6)  # weights sum to 1
