"""Decoding what is wrong: files that are cut, damaged, lie about themselves, or are no sound at all."""

from __future__ import annotations

import io
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from qwenaudio_np import ogg
from qwenaudio_np.audio import Clip, load_clip
from qwenaudio_np.errors import AudioError
from tests.sound_tools import STEPS, refusal, steps_of, wav, written

# --- not a sound file ---------------------------------------------------------------------------------------------

IMPOSTORS = [
    (b"\x89PNG\r\n\x1a\n" + bytes(60), "PNG"),
    (b"\xff\xd8\xff\xe0" + bytes(60), "JPEG"),
    (b"%PDF-1.4\n", "PDF"),
    (b"PK\x03\x04" + bytes(60), "zip archive"),
    (b"\0\0\0\x20ftypM4A " + bytes(60), "M4A"),
    (b"\x80\x04\x95" + bytes(60), "pickle"),
    (b"The quick brown fox\n" * 10, "looks like text"),
    (b"<!DOCTYPE html><html></html>", "HTML page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
    (b"\x01\x02\x03", "first bytes 01 02 03"),
    (b"x", "looks like text"),
    (wav(rate=0), "broken"),
    (wav(channels=0), "Channel count is zero"),
    (wav(channels=2000), "Too many channels"),
    (b"fLaC" + bytes(60), "FLAC"),
    (b"OggS" + bytes(60), "OGG"),
]


@pytest.mark.parametrize(("content", "said"), IMPOSTORS)
def test_other_files_are_named_for_what_they_are(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert said in refusal(path)
    assert said in refusal(io.BytesIO(content))


def test_places_that_hold_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    assert "directory" in refusal(tmp_path)
    assert "empty" in refusal(tmp_path / "empty.wav")
    assert "no such file" in refusal(tmp_path / "dangling.wav")
    assert "no such file" in refusal(tmp_path / "missing.wav")
    assert "cannot open" in refusal(tmp_path / "loop.wav")
    assert "cannot open" in refusal(tmp_path / "nul\0.wav")
    assert "empty" in refusal(io.BytesIO())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a Unix thing")
def test_pipe_and_device_by_name_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refusal(tmp_path / "fifo")
    assert "not a regular file" in refusal(Path("/dev/zero"))


@pytest.mark.parametrize("source", [7, b"a.wav", None, io.StringIO("text")])
def test_things_that_are_no_source(source: object) -> None:
    with pytest.raises(AudioError, match="expected a path or a binary stream"):
        load_clip(source)  # type: ignore[arg-type]


def test_a_stream_that_fails() -> None:
    closed = io.BytesIO(b"RIFF")
    closed.close()
    assert "cannot read" in refusal(closed)


def test_descriptors_are_neither_leaked_nor_closed_twice(tmp_path: Path) -> None:
    """libsndfile closes a descriptor it cannot use: closing it again would hit whatever file has that number by then."""
    good, bad, cut = tmp_path / "good.wav", tmp_path / "bad.wav", tmp_path / "cut.wav"
    good.write_bytes(wav(STEPS.tobytes()))
    bad.write_bytes(b"no sound")
    cut.write_bytes(wav())
    before = os.open(os.devnull, os.O_RDONLY)
    os.close(before)
    for _ in range(3):
        load_clip(good)
        refusal(bad)
        refusal(cut)
    after = os.open(os.devnull, os.O_RDONLY)
    os.close(after)
    assert after == before


# --- headers that lie ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claims", [2**31, 2**32 - 1])
def test_wav_that_promises_too_much(claims: int) -> None:
    """What is there is used: recorders that are switched off leave such files."""
    clip = load_clip(io.BytesIO(wav(STEPS.tobytes(), claims=claims)))
    assert np.array_equal(steps_of(clip), STEPS)


@pytest.mark.parametrize(("claims", "told"), [(10**9, True), (3 * 10**9, True), (2**31, False), (2**31 - 4096, False), (2**32 - 1, False)])
def test_what_is_missing_of_a_wav_is_told_unless_its_length_was_never_known(claims: int, told: bool) -> None:
    """What writes to a pipe promises about 2^31 or 2^32 bytes; a recording of other gigabytes was cut."""
    warnings = load_clip(io.BytesIO(wav(STEPS.tobytes(), claims=claims))).warnings
    assert any("its header promises" in warning for warning in warnings) == told


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no non-blocking pipes")
def test_a_pipe_that_does_not_wait_is_no_end_of_the_sound() -> None:
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    with open(ends[0], "rb") as stream, open(ends[1], "wb") as writer:
        writer.write(wav(STEPS.tobytes())[:1000])
        writer.flush()
        assert "it is non-blocking, and has nothing at the moment" in refusal(stream)


def test_wav_without_its_own_size() -> None:
    assert np.array_equal(steps_of(load_clip(io.BytesIO(wav(STEPS.tobytes(), riff=0)))), STEPS)


@pytest.mark.parametrize("content", [wav(), wav(STEPS.tobytes(), claims=0)])
def test_no_frames(content: bytes) -> None:
    assert "holds no sound (0 frames at 16000 Hz)" in refusal(io.BytesIO(content))


@pytest.mark.parametrize("rate", [10_000_001, 2**31 - 1])
def test_impossible_rates(rate: int) -> None:
    assert f"{rate} Hz" in refusal(io.BytesIO(wav(STEPS.tobytes(), rate=rate)))


def flac_claiming(path: Path, frames: int) -> bytes:
    """A FLAC file of `STEPS` whose STREAMINFO claims another length: the low 36 bits of the 64 at byte 18."""
    data = bytearray(written(path, STEPS, 16_000))
    (field,) = struct.unpack_from(">Q", data, 18)
    assert field & (2**36 - 1) == len(STEPS)
    struct.pack_into(">Q", data, 18, field & ~(2**36 - 1) | frames)
    return bytes(data)


@pytest.mark.parametrize("frames", [0, 2**36 - 1])
def test_flac_with_a_false_length(frames: int, tmp_path: Path) -> None:
    """0 means unknown. 2^36 - 1 frames would be half a terabyte, and 49 days."""
    clip = load_clip(io.BytesIO(flac_claiming(tmp_path / "a.flac", frames)))
    assert np.array_equal(steps_of(clip), STEPS)
    assert clip.total_seconds == 4.0
    assert len(clip.warnings) == (frames > 0)


def test_1024_channels_in_bounded_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of 1/16 s at 10 MHz and 1024 channels would hold 5 GB."""
    sizes: list[int] = []
    plain: Callable[..., NDArray[np.float64]] = soundfile.SoundFile.read

    def spy(self: soundfile.SoundFile, frames: int, **options: object) -> NDArray[np.float64]:
        sizes.append(frames * self.channels)
        return plain(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", spy)
    content = wav(bytes(2 * 1024 * 3000), rate=10_000_000, channels=1024)
    assert "too short: got 5 samples" in refusal(io.BytesIO(content))
    assert max(sizes) <= 2**20


# --- cut and damaged files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flac", "mp3", "ogg", "aiff", "wav", "rf64", "w64", "au"])
def test_a_cut_file_gives_what_came_before(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    data = written(path, STEPS, 16_000)
    whole = load_clip(path)
    path.write_bytes(data[: len(data) * 3 // 4])
    clip = load_clip(path)
    assert 1.5 < clip.seconds < 3.5
    assert np.array_equal(clip.waveform[:16_000], whole.waveform[:16_000])
    assert "is cut short or damaged: only" in clip.warnings[0]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_without_its_end_is_told_from_a_whole_one(subtype: str, tmp_path: Path) -> None:
    """libsndfile reads both alike: an OGG header holds no length, only the last page says that it is the last (RFC 3533)."""
    data = written(tmp_path / "a.ogg", STEPS, 16_000, format="OGG", subtype=subtype)
    last = data.rindex(b"OggS")
    assert not load_clip(io.BytesIO(data)).warnings and not load_clip(io.BytesIO(data + data)).warnings
    for cut in (last, last + 26, last + 40, len(data) - 1):
        clip = load_clip(io.BytesIO(data[:cut]))
        assert clip.warnings[0].endswith("s could be read (its last OGG page is missing)")
    marked = bytearray(data)
    marked[last + 5] &= ~4  # the mark; a wrong checksum hides the page from libsndfile
    assert "its last OGG page is missing" in load_clip(io.BytesIO(marked)).warnings[0]


def test_an_ogg_file_may_end_with_an_empty_page() -> None:
    page = b"OggS\0\4" + bytes(20) + b"\0"
    assert ogg.ends(b"sound" + page) and ogg.ends(page + b"a tag behind it")
    assert not ogg.ends(page[:-1])
    assert ogg.ends(b"other things behind it, as long as two pages")


def test_a_flac_cut_before_its_first_frame(tmp_path: Path) -> None:
    """libsndfile 1.2.2 says that it lost the stream; 1.2.0 reads nothing, and what the header promised is said."""
    data = written(tmp_path / "a.flac", STEPS, 16_000)
    message = refusal(io.BytesIO(data[:200]))
    assert "cannot be decoded" in message or "0 frames at 16000 Hz; its header promises 64000 frames" in message


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    """Random damage to headers and data: a clip, or one AudioError."""
    outcomes: set[type] = set()
    for kind in ("wav", "flac", "aiff", "ogg", "caf", "w64", "au"):
        data = written(tmp_path / f"a.{kind}", STEPS[:8000], 16_000)
        for seed in range(12):
            random = np.random.default_rng(seed)
            damaged = bytearray(data)
            for place in random.integers(0, len(data) if seed % 2 else 100, 6):
                damaged[place] = random.integers(256)
            try:
                outcomes.add(type(load_clip(io.BytesIO(damaged))))
            except AudioError as failure:
                assert str(failure).isprintable()
                outcomes.add(AudioError)
    assert outcomes == {Clip, AudioError}
