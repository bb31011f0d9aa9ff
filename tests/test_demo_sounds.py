"""From clips on disk to a step's spectrograms: packing, cutting, what a microphone adds, and mel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")
pytest.importorskip("scipy", reason="for training only; pip install '.[train]'")

from demo import pack, sounds  # noqa: E402
from demo.augment import augment, covered, noise, response  # noqa: E402
from demo.batches import SOUGHT, Feeder, collate, rows_of  # noqa: E402
from demo.clip_store import RATE, ClipStore  # noqa: E402
from demo.curriculum import Curriculum  # noqa: E402
from demo.examples import (  # noqa: E402
    SPEECH_AS_SCENE,
    chat_example,
    examples,
    speech_example,
    task_example,
    transcript_answer,
    when_answer,
)
from demo.front_end import log_mel  # noqa: E402
from demo.hearing import JOINED, LEFT, LONGEST, PARTS, SCENE_SPEEDS, heard, tight  # noqa: E402
from demo.sounds import Cut  # noqa: E402
from qwenaudio_np import mel as package  # noqa: E402
from qwenaudio_np.audio import position_count  # noqa: E402
from qwenaudio_np.tokenizer import Tokenizer  # noqa: E402

BYTES = Tokenizer({bytes([value]): value for value in range(256)})
CPU = torch.device("cpu")
TIMED = [{"kind": "words", "words": [("a", 0.4, 0.8), ("b", 1.0, 1.2)]}]


def tone(frequency: float, seconds: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sources: three clips, of which the second is for tests, and one note."""
    store = ClipStore(tmp_path, "b")
    for index, (frequency, split) in enumerate(((300.0, "train"), (500.0, "test"), (700.0, "train"))):
        more: dict[str, Any] = {"words": [["a", 0.1, 0.2], ["b", 0.3, 0.4]]} if index == 0 else {}
        store.write(index, tone(frequency, 0.6 + index), kind="words", text="a b", voice="v", split=split, **more)
    ClipStore(tmp_path, "a").write(0, tone(440.0, 1.5), kind="note", text="flute", voice="v", split="train", pitch=69)
    (tmp_path / "packs").mkdir()
    for source in ("a", "b"):
        for number in pack.missing(tmp_path, source):
            pack.write((tmp_path, source, number))
        pack.write_labels(tmp_path, source)
    return tmp_path


def test_packing_goes_on_where_it_was_stopped(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are there, the labels are not, and one file is of clips that were written anew."""
    for path in (data / "packs").glob("*.jsonl"):
        path.unlink()
    places = data / "packs" / "b.000.json"
    places.write_text(places.read_text().replace("00002.flac", "00007.flac"))
    assert [list(pack.missing(data, source)) for source in ("a", "b")] == [[], [0]]
    monkeypatch.setattr("sys.argv", ["pack", "--data", str(data), "--processes", "1"])
    pack.main()
    assert [entry["file"][-6:] for entry in sounds.labels(data)] == ["0.flac", "0.flac", "2.flac"]


def test_clips_of_other_lengths_than_those_that_were_packed_are_packed_again(data: Path) -> None:
    labels = data / "clips" / "a.jsonl"
    labels.write_text(labels.read_text().replace('"seconds": 1.5', '"seconds": 1.6'))
    assert list(pack.missing(data, "a")) == [0]


def test_what_overshoots_full_scale_is_cut_there(tmp_path: Path) -> None:
    """A codec's result is not within -1 .. 1; as whole numbers what is outside would come out with the other sign."""
    ClipStore(tmp_path, "loud").write(0, 1.998 * tone(440.0, 2.0), kind="scene", text="music", voice="v", split="train")
    (tmp_path / "packs").mkdir()
    pack.write((tmp_path, "loud", 0))
    wave, wanted = sounds.decoded(pack.piece_path(tmp_path, "loud", 0))[:32000], tone(440.0, 2.0)
    loud = np.abs(wanted) > 0.4
    assert (np.sign(wave[loud]) == np.sign(wanted[loud])).all() and np.abs(wave.astype(int)).max() >= 32700


def test_packed_clips_are_found_again(data: Path) -> None:
    entries, samples = sounds.labels(data), sounds.read(data, CPU)
    assert [(entry["source"], entry["samples"]) for entry in entries] == [("a", 24000), ("b", 9600), ("b", 41600)]
    assert samples.dtype == torch.int16 and len(samples) == 24000 + 9600 + 41600 + 3 * pack.SILENCE
    for entry, frequency in zip(entries, (440.0, 300.0, 700.0), strict=True):
        packed = samples[entry["start"] : entry["start"] + entry["samples"]].double().numpy()
        assert np.corrcoef(packed, tone(frequency, entry["seconds"]))[0, 1] > 0.98
    assert list(pack.missing(data, "b")) == []


def test_times_found_later_are_handed_out_and_told_ones_kept(data: Path) -> None:
    lines = [f'{{"file": "clips/b/0000{index}.flac", "words": [["a", 9.0, 9.1]]}}\n' for index in (0, 2)]
    (data / "packs" / f"b{sounds.TIMES}").write_text("".join(lines))
    assert [entry["words"] for entry in sounds.labels(data)] == [None, [["a", 0.1, 0.2], ["b", 0.3, 0.4]], [["a", 9.0, 9.1]]]


def test_silence_is_found_around_words_and_most_of_it_cut_off_now_and_then() -> None:
    """Half a second of tone behind 0.3 s of silence and before 0.2 s; the word's times move along and stay within the clip."""
    wave = np.concatenate([np.zeros(4800), tone(440.0, 0.5), np.zeros(3200)])
    samples = torch.from_numpy((np.concatenate([np.ones(100), wave]) * 16000).astype(np.int16))
    entry = {"kind": "words", "start": 100, "samples": len(wave), "words": [("a", 0.28, 0.81)]}
    found, other = sounds.with_silences([entry, entry | {"kind": "read"}], samples)
    assert found["silences"] == (4800, 3200) and "silences" not in other
    for seed in range(20):
        cut = tight(found, np.random.default_rng(seed))
        before, behind = 4900 - cut["start"], cut["start"] + cut["samples"] - 12900
        assert 0 <= before <= LEFT * RATE and 0 <= behind <= LEFT * RATE
        [(word, start, end)] = cut["words"]
        assert word == "a" and start == pytest.approx(max(0.0, before / RATE - 0.02))
        assert end == pytest.approx(min((before + 8000) / RATE + 0.01, cut["samples"] / RATE))
    drawn = [heard([found | {"source": "s", "text": "a"}], 0, np.random.default_rng(seed)) for seed in range(60)]
    assert 10 < sum(row.cuts[0].count < 9700 for row in drawn) < 40


def test_cuts_are_placed_in_their_rows_at_their_speeds() -> None:
    """At its own pace a cut is the clip itself; twice as fast, a tone is an octave higher and half as long."""
    samples = torch.from_numpy(np.rint(tone(200.0, 0.5) * 32768).astype(np.int16))
    cuts = [Cut(100, 4000, 1.0, 0, 50), Cut(0, 8000, 2.0, 1, 0), Cut(0, 1000, 1.0, 1, 5000)]
    waves = sounds.rows(samples, cuts, (3, 6400))
    assert torch.equal(waves[0, 50 : 50 + cuts[0].length], samples[100 : 100 + cuts[0].length].float() / 32768)
    assert waves[0, :50].abs().sum() == waves[2].abs().sum() == waves[1, 4000:5000].abs().sum() == 0
    octave = torch.from_numpy(tone(400.0, 0.5)[: cuts[1].length])
    assert cuts[1].length == 4000 and (waves[1, :4000] - octave).abs().max() < 2e-3
    assert torch.equal(waves[1, 5000 : 5000 + cuts[2].length], samples[: cuts[2].length].float() / 32768)


def test_a_microphone_leaves_alone_how_loud_a_kept_clip_is() -> None:
    torch.manual_seed(3)
    waves = torch.from_numpy(np.stack([tone(300.0, 1.0)] * 40)).float()
    lengths, kept = torch.tensor([16000, 12000] * 20), torch.arange(40) >= 20
    inside = torch.arange(16000) < lengths[:, None]
    changed = augment(waves * inside, lengths, kept)
    assert (changed * ~inside).abs().max() == 0 and changed.abs().max() <= 1
    difference = ((changed - waves) * inside).square().sum(1) / (waves * inside).square().sum(1)
    assert (difference[:20] > 1e-5).all() and (difference[20:] == 0).any() and (difference[20:] > 1e-2).any()
    loudness = changed.square().sum(1) / (waves * inside).square().sum(1)
    assert (loudness[20:] - 1).abs().max() < 0.02 and loudness[:20].std() > 0.1
    torch.manual_seed(3)
    assert torch.equal(changed, augment(waves * inside, lengths, kept))


def test_noise_is_as_loud_as_it_says_and_a_response_has_no_gain_beyond_its_colours() -> None:
    torch.manual_seed(0)
    assert noise(3, 4000, CPU).square().mean(1).tolist() == pytest.approx([1.0] * 3, rel=1e-4)
    gains = response(200, 4000, CPU).abs()
    assert gains.isfinite().all() and 0.5 < gains.median() < 2 and (gains == 1).all(1).any()


def test_covered_parts_are_as_low_as_silence_and_notes_stay_whole() -> None:
    torch.manual_seed(0)
    mel = 0.1 + torch.rand(40, 80, 200)
    mel[:, :, 160:] = 0.0  # behind every clip's end
    hidden = covered(mel, torch.full((40,), 160), torch.arange(40) >= 30)
    assert not hidden[:, :, 160:].any()
    mel, hidden = mel[:, :, :160], hidden[:, :, :160]
    assert torch.equal(hidden[30:], mel[30:]) and not torch.equal(hidden[:30], mel[:30])
    changed = hidden != mel
    assert torch.equal(hidden[changed], mel.amin((1, 2), keepdim=True).expand_as(mel)[changed]) and changed[:30].float().mean() < 0.4


def test_mel_is_the_packages_own() -> None:
    """Two clips of different lengths in one step, in float64 as there: what is padded changes nothing."""
    random = np.random.default_rng(0)
    clips = [0.1 * random.standard_normal(count) for count in (16000, 9999)]
    waves = torch.from_numpy(np.stack([np.pad(clip, (0, 16000 - len(clip))) for clip in clips]))
    frames = 2 * torch.tensor([position_count(len(clip)) for clip in clips])
    ours = log_mel(waves, frames).numpy()
    for clip, count, mel in zip(clips, frames.tolist(), ours, strict=True):
        np.testing.assert_allclose(mel[:, :count], package.log_mel(clip, dtype=np.float64)[:, :count], rtol=0, atol=1e-9)
        assert not mel[:, count:].any()


def entries(count: int, **more: Any) -> list[dict[str, Any]]:
    common = {"kind": "words", "text": "a b", "words": [["a", 0.0, 0.5], ["b", 0.5, 1.0]], "source": "s", "samples": 2 * RATE}
    return [common | more | {"start": 3 * RATE * index} for index in range(count)]


def test_a_clip_is_heard_with_its_words_where_they_sound() -> None:
    random = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        row = heard(entries(6), 1, random)
        seen.add(len(row.cuts))
        assert row.entry["text"] == " ".join(["a b"] * len(row.cuts)) and len(row.entry["words"]) == 2 * len(row.cuts)
        for number, cut in enumerate(row.cuts):
            (_, start, middle), (_, same, end) = row.entry["words"][2 * number : 2 * number + 2]
            assert start == pytest.approx(cut.at / RATE) and middle == same
            assert end - start == pytest.approx(1.0 / cut.speed) and cut.start == 3 * RATE * (1 + number)
        assert row.samples >= row.cuts[-1].at + row.cuts[-1].length
    assert seen == {1, 2, 3, 4}


def test_clips_of_other_sources_or_too_long_ones_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JOINED, "words", 1.0)
    random = np.random.default_rng(1)
    strangers = [*entries(1), *entries(3, source="t")]
    assert all(len(heard(strangers, 0, random).cuts) == 1 for _ in range(10))
    for _ in range(10):
        last = heard(entries(4, samples=12 * RATE), 0, random).cuts[-1]
        assert last.at + last.length <= LONGEST
    untimed = [*entries(1), *entries(3, words=None)]
    assert all(heard(untimed, 0, random).entry["words"] is None for _ in range(10))


def test_a_note_that_is_moved_is_called_by_its_new_key() -> None:
    """A key is a twelfth of an octave; up to a fifth of one, a note is out of tune."""
    random, seen = np.random.default_rng(1), set()
    note = entries(2, kind="note", text="flute", words=None, pitch=69)
    for _ in range(80):
        row = heard(note, 0, random)
        assert len(row.cuts) == 1 and row.cuts[0].at == 0
        seen.add(row.entry["pitch"])
        assert abs(12 * np.log2(row.cuts[0].speed) - (row.entry["pitch"] - 69)) < 0.2
    assert seen == {67, 68, 69, 70, 71} and note[0]["pitch"] == 69


def test_speech_is_asked_what_it_is_now_and_then() -> None:
    random, speech = np.random.default_rng(1), entries(1, words=None)[0]
    asked = [BYTES.decode([id_ for id_ in examples(speech, 30, BYTES, random).ids if id_ < 256]) for _ in range(2000)]
    told = [text for text in asked if text.endswith("speech")]
    assert 0.5 * SPEECH_AS_SCENE < len(told) / len(asked) < 1.5 * SPEECH_AS_SCENE
    imagined = [speech_example(speech, 30, BYTES, random) for _ in range(300)]  # these are asked for their words alone
    assert all("a b" in BYTES.decode([id_ for id_ in example.ids[example.answer :] if id_ < 256]) for example in imagined)


def test_no_batch_is_larger_than_its_budget_with_all_its_padding() -> None:
    batches = iter(Feeder([*entries(40), *entries(40, samples=5 * RATE)], BYTES, 3000, [0], Curriculum()))
    sizes = [next(batches).rows.ids.shape for _ in range(12)]
    assert all(rows * length <= 3000 or rows == 1 for rows, length in sizes) and max(rows for rows, _ in sizes) > 3


def test_a_batch_knows_which_rows_speak_and_which_are_notes() -> None:
    random = np.random.default_rng(1)
    clips = [*entries(1), *entries(1, kind="note", text="flute", words=None, pitch=69, velocity=25, instrument="flute")]
    rows = [heard(clips, index, random) for index in range(2)]
    batch = collate([(row, examples(row.entry, row.vectors, BYTES, random)) for row in rows], BYTES, random, Curriculum())
    assert batch.speech.tolist() == [0] and batch.notes.tolist() == [1] and batch.kept.tolist() == [False, True]
    assert {cut.row for cut in batch.cuts} == {0, 1} and batch.positions.tolist() == [position_count(n) for n in batch.samples.tolist()]
    assert batch.to(CPU).rows.ids.shape == batch.rows.targets.shape


def test_held_speech_is_heard_but_its_words_do_not_count() -> None:
    random = np.random.default_rng(1)
    clips = [*entries(1, kind="heard", words=None), *entries(1), *entries(1, kind="read")]
    rows, course = [heard(clips, index, random) for index in range(3)], Curriculum(held=("read", "heard"))
    batch = collate([(row, examples(row.entry, row.vectors, BYTES, random)) for row in rows], BYTES, random, course)
    assert batch.speech.tolist() == [0, 1, 2] and batch.told.tolist() == [1] and len(batch.spoken) == 1
    assert all((row >= 0).any() for row in batch.rows.targets)
    assert not batch.rows.weights[[0, 2]].any() and batch.rows.weights[1].all()
    assert batch.bound.tolist() == batch.speech.tolist()


def test_free_sources_are_taught_whatever_is_held_and_held_to_nothing() -> None:
    random, course = np.random.default_rng(1), Curriculum(held=("read", "heard"), free=("new",))
    clips = [*entries(1, kind="read"), *entries(1, kind="read", source="new-read"), *entries(1, source="new-words")]
    rows = [heard(clips, index, random) for index in range(3)]
    batch = collate([(row, examples(row.entry, row.vectors, BYTES, random)) for row in rows], BYTES, random, course)
    assert batch.speech.tolist() == [0, 1, 2] and batch.told.tolist() == [1, 2] and batch.bound.tolist() == [0]
    assert not batch.rows.weights[0].any() and batch.rows.weights[1:].all()


def test_of_a_long_noise_a_part_is_heard_and_of_silence_all() -> None:
    random, noise = np.random.default_rng(1), entries(1, kind="scene", text="noise", words=None, samples=6 * RATE)[0]
    cuts = [heard([noise], 0, random).cuts[0] for _ in range(100)]
    shortest, longest = (round(seconds * RATE) for seconds in PARTS["noise"])
    assert all(shortest <= cut.count <= longest and noise["start"] <= cut.start for cut in cuts) and len({cut.start for cut in cuts}) > 50
    assert max(cut.start + cut.count for cut in cuts) <= noise["start"] + 6 * RATE
    speeds = [cut.speed for cut in cuts]
    assert 20 < speeds.count(1.0) < 60 and SCENE_SPEEDS[0] < min(speeds) < 0.85 and 1.2 < max(speeds) < SCENE_SPEEDS[1]
    short = noise | {"samples": RATE}
    assert {heard([entry], 0, random).cuts[0].count for entry in (short, short | {"text": "silence"})} == {RATE}
    assert {heard([short | {"text": "silence"}], 0, random).cuts[0].speed for _ in range(20)} == {1.0}


def test_where_a_word_starts_that_a_later_turn_asks_for_counts_more() -> None:
    turns = [("what?", transcript_answer("a b")), ("when?", when_answer("b", 1.0, 1.2))]
    example = chat_example("when?", when_answer("a", 0.4, 0.8), 50, BYTES, turns)
    rows = rows_of([example], TIMED, [50], BYTES, np.random.default_rng(0))
    heavy = rows.targets[rows.weights == SOUGHT].tolist()
    assert BYTES.decode(heavy) == "<|1.00|><|0.40|>" and rows.weights.unique().tolist() == [1.0, SOUGHT]


def test_an_answer_is_heard_behind_the_tag_of_its_clip() -> None:
    example = task_example("asr", "a b", 50, BYTES)
    rows = rows_of([example], TIMED, [50], BYTES, np.random.default_rng(0))
    place = example.answer - 1
    assert rows.targets[0, place].item() == ord("a")
    assert (rows.heard[0, place] - rows.spans[0] - 1).tolist() == [9, 20]
