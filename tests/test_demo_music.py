"""The demonstration's notes, scenes and recordings of real people: what can be checked without a synthesiser or the recordings."""

from __future__ import annotations

import json
import random
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from demo import g722, music, noises, phrases, real, scenes
from demo.clip_store import ClipStore, read_clip, read_labels
from demo.synthesiser import DRUMS, Event, Note, timeline
from demo.transcripts import asterisk_transcripts, sphinx_transcripts, spoken_words

# --- clips on disk -----------------------------------------------------------------------------------------------


def test_clips_are_stored_as_16_bits_at_16_khz_with_one_label_a_line(tmp_path: Path) -> None:
    store = ClipStore(tmp_path, "tones")
    store.write(7, np.repeat([0, 0.5, -1, 1, 1 / 32768], 8), kind="note", text="flute", voice="x", split="train", pitch=60)
    (line,) = (tmp_path / "clips/tones.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "file": "clips/tones/00007.flac", "kind": "note", "text": "flute", "words": None, "voice": "x", "split": "train",
        "seconds": 0.003, "pitch": 60,
    }  # fmt: skip
    samples, rate = soundfile.read(tmp_path / "clips/tones/00007.flac", dtype="int16")
    assert (rate, samples[::8].tolist()) == (16000, [0, 16384, -32768, 32767, 1])


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = ClipStore(tmp_path, "tones")
    for index in (0, 1, 3):
        store.write(index, np.zeros(16), kind="scene", text="silence", voice="", split="train")
    path = tmp_path / "clips/tones.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # killed while the last label was being written
    again = ClipStore(tmp_path, "tones")
    assert list(again.missing(5)) == [2, 3, 4]
    again.write(3, np.zeros(16), kind="scene", text="silence", voice="", split="train")
    assert [label["file"][-10:-5] for label in read_labels(path)] == ["00000", "00001", "00003"]


@pytest.mark.parametrize("wrong", [1.25, float("nan")])
def test_samples_that_would_be_clipped_are_refused(tmp_path: Path, wrong: float) -> None:
    with pytest.raises(ValueError, match="at most 1 can be stored"):
        ClipStore(tmp_path, "loud").write(0, np.array([0, wrong]), kind="note", text="", voice="", split="train")
    assert not (tmp_path / "clips/loud.jsonl").exists()


def test_clips_of_another_rate_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(8), 8000)
    with pytest.raises(ValueError, match="8000 Hz"):
        read_clip(tmp_path / "a.flac")


# --- notes -------------------------------------------------------------------------------------------------------


def test_time_line_in_samples_keys_up_before_keys_down() -> None:
    notes = [Note(0.5, 1.0, 60, 100), Note(0.0, 0.5, 60, 50), Note(0.25, 2.0, 36, 127, DRUMS)]
    assert timeline(notes, 1000) == [
        Event(0, 50, 0, 60), Event(250, 127, 9, 36), Event(500, 0, 0, 60),
        Event(500, 100, 0, 60), Event(1000, 0, 0, 60), Event(2000, 0, 9, 36),
    ]  # fmt: skip


def test_training_notes_keep_to_their_families_and_away_from_the_test() -> None:
    trained = [music.training_clip(index) for index in range(music.TRAIN_CLIPS)]
    tested = [music.held_out_clip(index) for index in range(music.TEST_CLIPS)]
    pairs = {(clip.program.number, clip.pitch) for clip in trained}
    programs = {clip.program.number for clip in trained}
    for clip in tested:
        assert (clip.program.number, clip.pitch) not in pairs
        assert (clip.program.number in programs) == (clip.part == "unseen_pitch")
    for clip in trained + tested:
        family = music.FAMILIES[clip.family]
        assert 36 <= family.lowest <= clip.pitch <= family.highest <= 84
        assert clip.program.number in (*family.programs, family.held_out)
        assert clip.note.key - clip.pitch == (12 if clip.program.number in (17, 18) else 0)
        assert clip.note.velocity in (25, 50, 75, 100, 127)
        assert 0 <= clip.note.start <= 0.4 and 0.8 <= clip.note.end - clip.note.start <= 2.2
        assert 1.5 <= clip.seconds <= 3 and clip.note.end < clip.seconds
    assert {clip.part for clip in tested} == {"unseen_pitch", "held_out_program"}
    assert {clip.family for clip in trained} == {clip.family for clip in tested} == set(music.FAMILIES)
    assert {clip.pitch for clip in trained} == set(range(36, 85))


def test_no_program_belongs_to_two_families() -> None:
    numbers = [number for family in music.FAMILIES.values() for number in (*family.programs, family.held_out)]
    assert len(numbers) == len(set(numbers))


def test_a_clip_is_a_function_of_its_index() -> None:
    assert music.training_clip(123) == music.training_clip(123) != music.training_clip(134)
    first, again, other = (scenes.generator("scene_noise", index).random(3).tolist() for index in (5, 5, 6))
    assert first == again != other != scenes.generator("scene_noise_test", 6).random(3).tolist()


# --- scenes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", [False, True])
def test_phrases_last_and_keep_to_the_programs_of_their_split(test: bool) -> None:
    allowed = {part: set(programs[test]) for part, programs in phrases.PROGRAMS.items()} | {DRUMS: {0}}
    for seed in range(50):
        music_, seconds = phrases.phrase(random.Random(seed), 7.0, test=test), 7.0
        assert {note.channel for note in music_.notes} == set(music_.programs)
        assert all(program.number in allowed[channel] for channel, program in music_.programs.items())
        assert max(note.end for note in music_.notes) > seconds - 2.1  # at 60 beats a minute the last bar may end in a rest of 2 s
        assert all(0 <= note.start < note.end and 20 < note.key < 110 and 0 < note.velocity < 128 for note in music_.notes)


def test_phrases_of_training_and_test_share_no_program() -> None:
    trained, tested = (set().union(*programs) for programs in zip(*phrases.PROGRAMS.values(), strict=True))
    assert len(trained) > 30 and len(tested) > 15 and not trained & tested


@pytest.mark.parametrize("kind", noises.NOISES)
@pytest.mark.parametrize("test", [False, True])
def test_every_noise_sounds_all_the_time_it_should(kind, test: bool) -> None:  # type: ignore[no-untyped-def]
    sound = kind(np.random.default_rng(1), 48000, test)
    assert sound.shape == (48000,) and np.isfinite(sound).all()
    halves = np.sqrt(np.mean(sound.reshape(2, -1) ** 2, axis=1))
    assert halves.min() > 0.02 * halves.max() > 0


def test_noise_colours_fall_as_they_should() -> None:
    for slope in (0.0, 1.0, 2.0):
        sound = noises.coloured(np.random.default_rng(0), 1 << 17, slope)
        power = np.abs(np.fft.rfft(sound)) ** 2
        frequency = np.fft.rfftfreq(len(sound), 1 / 16000)
        low, high = (power[(frequency > centre / 1.2) & (frequency < centre * 1.2)].mean() for centre in (200, 3200))
        assert 10 * np.log10(low / high) == pytest.approx(slope * 10 * np.log10(16), abs=1)  # four octaves


def test_the_hum_of_the_mains_is_heard_in_the_test_alone() -> None:
    """One second, so that bin k of the spectrum is k Hz: the hum of the test stands at multiples of 60, none of the training's does."""

    def share_at(multiples: int, seed: int, test: bool) -> float:
        power = np.abs(np.fft.rfft(noises.hum(np.random.default_rng(seed), 16000, test))) ** 2
        return float(power[multiples : 20 * multiples : multiples].sum() / power[:1000].sum())

    assert all(share_at(60, seed, True) > 0.9 for seed in range(20))
    assert all(share_at(60, seed, False) < 0.5 for seed in range(20))


def test_levels() -> None:
    for seed in range(30):
        draw = np.random.default_rng(seed)
        level = 10 * np.log10(np.mean(noises.noise(draw, 32000, False)[1] ** 2))
        assert level < -9.9
        name, nothing = noises.silence(draw, 32000, False)
        quiet = 10 * np.log10(np.mean(nothing**2) + 1e-20)
        assert (-75.1 < quiet < -59.9) if name == "faint noise" else quiet < -90
    peaky = np.zeros(1000)
    peaky[3] = 1
    assert np.abs(noises.at_level(peaky, -10)).max() == pytest.approx(0.99)


def test_speech_is_cut_or_padded_to_length() -> None:
    draw, clip = np.random.default_rng(0), np.arange(1.0, 11.0)
    part = scenes.placed(draw, clip, 4)
    assert len(part) == 4 and (np.diff(part) == 1).all()
    padded = scenes.placed(draw, clip, 25)
    assert len(padded) == 25 and padded[padded > 0].tolist() == clip.tolist()


def test_speech_scenes_say_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(FileNotFoundError, match=r"run demo\.speech and demo\.real first"):
        scenes.speech_maker(tmp_path, tmp_path)


# --- real people -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transcript", "words"),
    [
        ("Goodbye!", "goodbye"),
        ("Press 1 for", "press one for"),
        ("press * to toggle pause, press # to enter", "press star to toggle pause press pound to enter"),
        ("...to mute, or unmute yourself.", "to mute or unmute yourself"),
        ("I am sorry, that's not a valid extension.", "i am sorry that's not a valid extension"),
        ("o'clock", "o'clock"),
        ("A.M.", "a m"),
        ("the Asterisk Open Source PBX.", "the asterisk open source p b x"),
        ("3D audio enabled", "three d audio enabled"),
        ("list all non-administrator users, 3 to mute or umute", "list all non administrator users three to mute or unmute"),
        ("dash [-]", "dash"),
        ("Use the 7 key for Q and the 9 key for Z.", "use the seven key for q and the nine key for z"),
        ('a polite "don\'t call" menu', "a polite don't call menu"),
        ("Un-indentified or witheld", "unidentified or withheld"),
        ("[sound of monkeys screaming]", None),
        ("(1 second of silence)", None),
        ("<beep ascending>", None),
        ("visit www.asterisk.org.", None),
        ("dial 500 to attempt", None),
        ("at least a 28.8 kilobit modem", None),
        ("", None),
    ],
)
def test_transcripts_become_words(transcript: str, words: str | None) -> None:
    assert spoken_words(transcript) == words


def test_lists_of_transcripts() -> None:
    assert asterisk_transcripts("; a comment\n\ndigits/1: one\npriv: who says: hello\n") == {"digits/1": "one", "priv": "who says: hello"}
    text = "<s> ten of clubs  </s> (001)\n<s> HE was not </s> (austen_64kb-0880)\n"
    assert sphinx_transcripts(text) == {"001": "ten of clubs", "austen_64kb-0880": "he was not"}


def test_words_are_trimmed_where_they_fall_below_40_db() -> None:
    frame = 160
    loudness = np.repeat([0, 0.004, 0.5, 0.3, 0.006, 0.004, 0], frame)  # a hundredth of 0.5 is 0.005
    square = loudness * np.where(np.arange(len(loudness)) % 2, 1, -1)
    assert real.trimmed(square).tolist() == square[2 * frame : 5 * frame].tolist()


def test_joined_words_lie_where_their_times_say() -> None:
    words = [("one", np.full(4000, 0.1)), ("two", np.full(2000, 0.2)), ("one", np.full(4000, 0.1))]
    samples, times = real.joined(words, random.Random(4))
    assert [word for word, _, _ in times] == ["one", "two", "one"]
    for (_, sound), (_, start, end) in zip(words, times, strict=True):
        inside = samples[round((start + 0.001) * 16000) : round((end - 0.001) * 16000)]
        assert (inside == sound[0]).all() and end - start == pytest.approx(len(sound) / 16000, abs=0.0011)
    ends = [0.0, *(end for _, _, end in times)]
    assert all(0.049 < start - before < 0.401 for (_, start, _), before in zip(times, ends, strict=False))
    assert np.count_nonzero(samples) == 10000 and samples[-1] == 0


@pytest.mark.parametrize(
    ("number", "names"), [(21, "20 1"), (40, "40"), (115, "1 hundred 15"), (300, "3 hundred"), (999, "9 hundred 90 9")]
)
def test_numbers_are_said_with_the_recordings_there_are(number: int, names: str) -> None:
    assert real._number(number) == [f"digits/{name}" for name in names.split()]


def test_strings_name_recordings_of_their_own_kind() -> None:
    for part, form in (("digits", r"digits/\d"), ("letters", "letters/[a-z]"), ("phonetic", "phonetic/[a-z]_p")):
        names = real._string(random.Random(1), part, 200)
        assert len(names) == 200 and all(re.fullmatch(form, name) for name in names)


# --- G.722 -------------------------------------------------------------------------------------------------------


def test_g722_gives_the_samples_of_another_decoder() -> None:
    """FFmpeg's decoder (PyAV 18.1) gave these samples for these bytes."""
    data = bytes((index * index * 37 + index * 11 + index // 7) % 256 for index in range(2000))
    samples = g722.decode(data)
    assert samples.dtype == np.int16 and samples.shape == (4000,)
    assert samples[:12].tolist() == [0, 0, 0, -1, -1, 0, 0, -1, -1, 0, -1, -6]
    assert samples[1000:1006].tolist() == [-4425, -13548, -12108, -3074, -3953, 5607]
    assert zlib.crc32(samples.astype("<i2").tobytes()) == 581903352


def test_g722_of_nothing_is_nothing() -> None:
    assert g722.decode(b"").shape == (0,)
