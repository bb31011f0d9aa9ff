"""What a run teaches: how often each clip is drawn, who learns, and how the command line says it."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import curriculum, train  # noqa: E402
from demo.curriculum import LOW, LOW_TIMES, SHARES, WEIGHTS, Curriculum  # noqa: E402
from demo.twin import Twin  # noqa: E402


def entries(count: int, kind: str, samples: int, **more: Any) -> list[dict[str, Any]]:
    return [{"kind": kind, "text": "x", "samples": samples} | more] * count


def sound(clips: list[dict[str, Any]], odds: np.ndarray) -> dict[str, float]:
    """Each kind's part of the sound that is drawn."""
    drawn = odds * [clip["samples"] for clip in clips]
    kinds = [Curriculum().share_of(clip) for clip in clips]
    return {kind: float(sum(part for part, name in zip(drawn, kinds, strict=True) if name == kind) / drawn.sum()) for kind in set(kinds)}


def test_each_kind_has_its_share_of_the_sound_however_many_clips_it_has() -> None:
    noises, music = (entries(count, "scene", 3, text=text) for text, count in (("noise", 300), ("music", 20)))
    clips = [*entries(10, "words", 2), *entries(400, "words", 1), *entries(50, "note", 1, pitch=69), *noises, *music]
    odds = Curriculum().odds(clips)
    total = sum(SHARES[kind] for kind in ("words", "note", "noise", "music"))
    assert odds.sum() == pytest.approx(1.0)
    assert sound(clips, odds) == pytest.approx({kind: SHARES[kind] / total for kind in ("words", "note", "noise", "music")})
    mostly_noise = Curriculum({"words": 1.0, "noise": 3.0}).odds(clips)
    assert sound(clips, mostly_noise) == pytest.approx({"words": 0.25, "noise": 0.75, "music": 0.0, "note": 0.0})


def test_free_sources_have_a_share_of_their_own() -> None:
    old, new = entries(20, "words", 1, source="old-words"), entries(3, "words", 1, source="new-words")
    clips = [*old, *new, *entries(1, "read", 4, source="new-read")]
    odds = Curriculum({"words": 1.0, "read": 1.0, "free": 3.0}, free=("new",)).odds(clips)
    assert odds[:20].sum() * 3 == pytest.approx(odds[20:23].sum() + 4 * odds[23])
    assert odds[20] == pytest.approx(odds[23])


def test_low_notes_come_more_often_and_notes_keep_their_share() -> None:
    notes = [entry for pitch in (LOW - 1, LOW) for entry in entries(1, "note", 5, pitch=pitch)]
    odds = Curriculum().odds([*notes, *entries(1, "words", 5)])
    assert odds[0] == pytest.approx(LOW_TIMES * odds[1])
    assert odds[:2].sum() / odds[2] == pytest.approx(SHARES["note"] / SHARES["words"])


def test_what_stays_still_does_not_learn_and_nothing_does_while_a_run_settles() -> None:
    twin = Twin()

    def learning(course: Curriculum, settling: bool) -> set[str]:
        course.let_learn(twin, settling)
        return {name for name, parameter in twin.named_parameters() if parameter.requires_grad}

    everything = {name for name, _ in twin.named_parameters()}
    assert learning(Curriculum(), settling=True) == set()
    assert learning(Curriculum(), settling=False) == everything
    still = everything - learning(Curriculum(still=2), settling=False)
    assert {name.split(".")[1] for name in still} == {"conv1", "conv2", "blocks"}
    assert {name.split(".")[2] for name in still if "blocks" in name} == {"0", "1"}
    assert learning(Curriculum(decoder_still=True), settling=False) == {name for name in everything if name.startswith("audio.")}
    both = learning(Curriculum(still=2, decoder_still=True), settling=False)
    assert both == {name for name in everything - still if name.startswith("audio.")}


def test_the_command_line_changes_what_it_names_and_nothing_else() -> None:
    parser = argparse.ArgumentParser()
    curriculum.add_arguments(parser)
    assert curriculum.from_arguments(parser.parse_args([])) == Curriculum()
    alone = curriculum.from_arguments(parser.parse_args(["--shares", "note=0.3"]), alone=True)
    assert alone.shares == SHARES | {"note": 0.3, "heard": 0.0}
    options = "--shares noise=0.2 music=.15 --weights vectors=40 --hold read --free new --still 2 --decoder-still"
    given = parser.parse_args(options.split())
    course = curriculum.from_arguments(given)
    assert course.shares == SHARES | {"noise": 0.2, "music": 0.15} and course.weights == WEIGHTS | {"vectors": 40.0}
    assert course.held == ("read", "heard") and course.free == ("new",)
    assert course.still == 2 and course.decoder_still
    assert Curriculum().imagines and not course.imagines


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--shares", "nois=0.2"], "'nois' is none of read, words, heard, free, note, speech, music, noise, silence"),
        (["--shares", "noise"], "'noise': expected noise=NUMBER"),
        (["--weights", "vectors=-1"], "'vectors=-1': expected vectors=NUMBER, a number from 0 on"),
        (["--weights", "vectors=nan"], "'vectors=nan': expected"),
        (["--free", "new"], "--free needs --shares free=NUMBER"),
        (["--hold", "read"], "--hold needs --like"),
    ],
)
def test_a_curriculum_that_cannot_be_is_told(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train", *words])
    with pytest.raises(SystemExit, match="2"):
        train.main()
    assert told in capsys.readouterr().err
