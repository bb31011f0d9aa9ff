"""Notes and scenes for the encoder's first blocks: where a note begins, what is drawn, what is read, and who learns."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import first_blocks, pack, sounds, words  # noqa: E402
from demo.clip_store import RATE, ClipStore  # noqa: E402
from demo.twin import Twin  # noqa: E402
from qwenaudio_np.embedded import FOLDER  # noqa: E402

QUIET = RATE // 2  # samples before a note


def data(folder: Path) -> Path:
    """Two notes, one of them low, behind silence; two clips of speech of other lengths; silence, four seconds of music, and speech."""
    sound = 0.3 * np.sin(np.arange(RATE) / 9.0)
    note = np.concatenate([np.zeros(QUIET), sound, sound])
    (folder / "packs").mkdir()
    clips = {
        "a": [("words", sound, {}), ("words", np.concatenate([sound, sound]), {}), ("scene silence", 0 * sound, {})],
        "c": [("scene music", np.tile(sound, 4), {})],
        "d": [("scene speech", sound, {})],
        "b": [("note", note, {"pitch": pitch, "velocity": 25, "instrument": "flute"}) for pitch in (36, 69)],
    }
    for source, each in clips.items():
        for number, (kind, wave, more) in enumerate(each):
            name, _, text = kind.partition(" ")
            ClipStore(folder, source).write(number, wave, kind=name, text=text or "one", voice="v", split="train", **more)
        pack.write((folder, source, 0))
        pack.write_labels(folder, source)
    shutil.copy(FOLDER / words.FILE, folder / words.FILE)
    return folder


def test_a_note_begins_where_it_is_first_loud() -> None:
    wave = torch.zeros(100, dtype=torch.int16)
    wave[30:] = torch.tensor([3, 40, -20000, *[9] * 67], dtype=torch.int16)
    assert first_blocks.attack(wave, {"start": 10, "samples": 80}) == 22  # 3 and 40 are below 20000 / 200
    assert first_blocks.attack(wave, {"start": 0, "samples": 20}) == 0


def test_notes_are_cut_short_behind_their_attack(tmp_path: Path) -> None:
    folder = data(tmp_path)
    heard = sounds.read(folder, torch.device("cpu"))
    draw = first_blocks.Draw(sounds.labels(folder), heard, np.random.default_rng(0))
    assert all(abs(entry["attack"] - QUIET) < 2048 for entry in draw.played)  # the codec spreads it over a block
    assert draw.odds == pytest.approx([3 / 4, 1 / 4])
    clips, told = draw.notes()
    assert told.shape == (first_blocks.NOTES, 3) and len(clips.samples) == first_blocks.NOTES and all(clips.kept)
    starts = {entry["start"]: entry for entry in draw.played}
    short = [cut for cut in clips.cuts if cut.start not in starts]
    assert 0.6 < len(short) / len(clips.cuts) < 0.95
    for cut in short:
        entry = max((entry for start, entry in starts.items() if start <= cut.start), key=lambda entry: entry["start"])
        attack = entry["start"] + entry["attack"]
        assert 0 <= attack - cut.start <= first_blocks.LEAD * RATE
        assert 0.49 * RATE < cut.start + cut.count - attack <= 1.2 * RATE


@pytest.mark.parametrize(("seconds", "most"), [(1, 1), (2, 2), (60, 2)])
def test_a_step_has_so_much_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, most: int) -> None:
    """Of clips of one and two seconds; at least one, and no more than there are."""
    folder = data(tmp_path)
    monkeypatch.setattr(first_blocks, "SPEECH", seconds * RATE + 1)
    draw = first_blocks.Draw(sounds.labels(folder), sounds.read(folder, torch.device("cpu")), np.random.default_rng(0))
    assert max(len(draw.speech().cuts) for _ in range(20)) == most


def test_speech_comes_with_its_neighbours_in_length_and_silence_around(tmp_path: Path) -> None:
    folder = data(tmp_path)
    draw = first_blocks.Draw(sounds.labels(folder), sounds.read(folder, torch.device("cpu")), np.random.default_rng(0))
    lengths = [entry["samples"] for entry in draw.spoken]
    assert lengths == sorted(lengths) and {entry["kind"] for entry in draw.spoken} == {"words"}
    drawn = [draw.speech() for _ in range(20)]
    for clips in drawn:
        assert 1 <= len(clips.cuts) <= 2 and not any(clips.kept)
        assert [cut.row for cut in clips.cuts] == list(range(len(clips.cuts)))
        assert all(count >= cut.at + cut.length for count, cut in zip(clips.samples, clips.cuts, strict=True))
    assert {cut.at > 0 for clips in drawn for cut in clips.cuts} == {True, False}


def test_scenes_are_short_and_of_each_source_but_speech(tmp_path: Path) -> None:
    folder = data(tmp_path)
    draw = first_blocks.Draw(sounds.labels(folder), sounds.read(folder, torch.device("cpu")), np.random.default_rng(0))
    of_scenes = [entry for source in draw.sources for entry in source]
    clips, kinds = zip(*(draw.scenes() for _ in range(20)), strict=True)
    told = torch.cat(kinds).tolist()
    assert len(told) == 20 * first_blocks.SCENES
    assert {first_blocks.KINDS[number] for number in told} == {"music", "silence"} and 0.35 < np.mean(np.equal(told, told[0])) < 0.65
    for one, numbers in zip(clips, kinds, strict=True):
        silent = [first_blocks.KINDS[number] == "silence" for number in numbers]
        assert one.kept == silent and all((cut.speed == 1.0) == quiet for cut, quiet in zip(one.cuts, silent, strict=True))
        assert max(cut.count for cut in one.cuts) <= first_blocks.LONGEST
        for cut in one.cuts:
            assert any(entry["start"] <= cut.start and cut.start + cut.count <= entry["start"] + entry["samples"] for entry in of_scenes)
    assert len({cut.start for one in clips for cut in one.cuts if cut.count == first_blocks.LONGEST}) > 20  # from anywhere in the music


def test_mean_and_spread_leave_the_padding_out() -> None:
    states = torch.randn(2, 5, first_blocks.sizes.STATE, generator=torch.Generator().manual_seed(0))
    inside = torch.arange(5) < torch.tensor([[5], [3]])
    mean, spread = first_blocks.mean_and_spread(states, inside)
    rows = states.double()
    normal = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    for row, count in enumerate((5, 3)):
        assert torch.allclose(mean[row].double(), normal[row, :count].mean(0), atol=1e-5)
        assert torch.allclose(spread[row].double().square() - 1e-4, normal[row, :count].var(0, unbiased=False), atol=1e-5)


def test_the_first_blocks_learn_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command, from packed clips to a model: the losses of notes and scenes fall, and no number behind the first blocks is another."""
    folder, out = data(tmp_path), tmp_path / "out"
    monkeypatch.setattr(first_blocks, "NOTES", 4)
    monkeypatch.setattr(first_blocks, "SCENES", 3)
    monkeypatch.setattr(first_blocks, "SPEECH", 4 * RATE)
    monkeypatch.setattr(first_blocks, "REPORT_EVERY", 1)
    monkeypatch.setattr(first_blocks, "schedule", lambda share: 1.0)
    monkeypatch.setattr(first_blocks.FirstBlocks, "minutes", property(lambda run: float(run.step >= 8)))
    command = ["first_blocks", "--data", str(folder), "--start", str(FOLDER), "--minutes", "1", "--rate", "3e-4", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    first_blocks.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    for name in ("note", "scene"):
        found = [float(line.split(f"{name} ")[1].split(",")[0]) for line in lines]
        assert found[-1] < 0.9 * found[0], name
    assert lines[0].endswith("moved 0.000")  # it is the model it began from
    old, new = Twin.from_checkpoint(FOLDER).state_dict(), Twin.from_checkpoint(out).state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    first = tuple(f"audio.{part}" for part in ("conv1", "conv2", "blocks.0.", "blocks.1."))
    assert moved and all(name.startswith(first) for name in moved)
    assert "audio.blocks.1.mlp.2.weight" in moved and "audio.conv1.weight" in moved
