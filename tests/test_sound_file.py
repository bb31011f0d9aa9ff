"""Decoding: every format libsndfile writes, and files that are cut, lie, or are no sound at all."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from qwenaudio_np import sound_file
from qwenaudio_np.audio import Clip, load_clip
from qwenaudio_np.errors import AudioError

ROOT = Path(__file__).resolve().parent.parent
SPEECH_LIKE = np.convolve(np.random.default_rng(0).normal(size=64_000), np.ones(8) / 8, "same") * 0.3  # 4 s at 16 kHz
STEPS = np.round(SPEECH_LIKE * 32768).astype(np.int16)

# RAW has no header to read and SD2 keeps its header in a second file.
FORMATS = sorted(set(soundfile.available_formats()) - {"RAW", "SD2"})
LOSSLESS = {"PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32", "DWVW_16", "DWVW_24", "DPCM_16"}


def written(path: Path, data: NDArray[np.generic], rate: int, **options: str) -> bytes:
    """Write a sound file, or skip where this libsndfile cannot."""
    try:
        soundfile.write(path, data, rate, **options)
    except soundfile.LibsndfileError as failure:
        pytest.skip(f"this libsndfile does not write {options}: {failure}")
    return path.read_bytes()


def wav(samples: bytes = b"", *, rate: int = 16_000, channels: int = 1, claims: int | None = None, riff: int | None = None) -> bytes:
    """A 16-bit WAV file whose header says what it is told to."""
    size = len(samples) if claims is None else claims
    whole = min(36 + size, 2**32 - 1) if riff is None else riff
    layout = struct.pack("<HHIIHH", 1, channels, rate, min(rate * channels * 2, 2**32 - 1), (channels * 2) % 2**16, 16)
    return b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt \x10\0\0\0" + layout + b"data" + struct.pack("<I", size) + samples


def steps_of(clip: Clip) -> NDArray[np.int64]:
    steps = clip.waveform.astype(np.float64) * 32768
    assert np.array_equal(steps, np.rint(steps))
    return steps.astype(np.int64)


def refusal(source: Path | io.BytesIO) -> str:
    """The message of the AudioError that the source raises: one line of ASCII."""
    with pytest.raises(AudioError) as failure:
        load_clip(source)
    message = str(failure.value)
    assert message.isascii()
    assert message.isprintable()
    return message


# --- formats ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", FORMATS)
def test_every_format_and_subtype(container: str, tmp_path: Path) -> None:
    """What libsndfile writes is read back: exactly where nothing is lost, else the same wave at the same place."""
    read = 0
    for subtype in soundfile.available_subtypes(container):
        path = tmp_path / f"{subtype}.bin"
        try:
            soundfile.write(path, STEPS[:16_000] / 32768, 16_000, format=container, subtype=subtype)
        except soundfile.LibsndfileError:
            continue  # for example MP3 layers I and II: read only
        header = soundfile.info(path)
        clip = load_clip(path)
        assert len(clip.waveform) == round(header.frames * 16_000 / header.samplerate), subtype
        assert not [line for line in clip.warnings if "cut" in line], subtype
        if header.samplerate == 16_000:
            got, want = steps_of(clip)[:15_900], STEPS[:15_900]  # libsndfile's SDS writer loses its last block
            if subtype in LOSSLESS:
                assert np.array_equal(got, want), subtype
            else:
                assert np.corrcoef(got, want)[0, 1] > 0.8, subtype
        read += 1
    if not read:
        pytest.skip(f"this libsndfile writes no subtype of {container}")


@pytest.mark.parametrize("rate", [8000, 11_025, 12_345, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6, 16])
def test_every_rate_and_channel_count(rate: int, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full((rate // 5, channels), 0.25), rate)
    clip = load_clip(path)
    assert len(clip.waveform) == round(rate // 5 * 16_000 / rate)
    np.testing.assert_allclose(clip.waveform[1000:-1000], 0.25, rtol=0, atol=1 / 32768)


def test_mp3_is_decoded_without_seeking(tmp_path: Path) -> None:
    """Reading in blocks must give what one read of the whole gives; seeking between blocks is off by up to 0.3, for MP3.

    One step is allowed, because the decoder's own last bit depends on whether it was rewound before the first read.
    """
    path = tmp_path / "a.mp3"
    written(path, SPEECH_LIKE, 16_000)
    whole, _ = soundfile.read(path)
    np.testing.assert_allclose(steps_of(load_clip(path)), np.clip(np.rint(whole * 32768), -32768, 32767), rtol=0, atol=1)


def test_path_types_and_streams_agree(speech: Path) -> None:
    want = load_clip(speech)
    assert want.path == str(speech)
    with open(speech, "rb") as stream:
        streamed = load_clip(stream)
    anonymous = load_clip(io.BytesIO(speech.read_bytes()))
    for clip in (load_clip(str(speech)), streamed, anonymous):
        assert np.array_equal(clip.waveform, want.waveform)
        assert (clip.seconds, clip.total_seconds, clip.warnings) == (want.seconds, want.total_seconds, ())
    assert anonymous.path == "<stream>"


def test_a_pipe_is_read_as_a_stream(tmp_path: Path) -> None:
    code = "import sys; from qwenaudio_np.audio import load_clip; print(len(load_clip(sys.stdin.buffer).waveform))"
    done = subprocess.run([sys.executable, "-c", code], input=wav(STEPS.tobytes()), capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"64000\n"


NAMES = ["-rf.wav", "--help", "two\nlines.wav", "esc\x1b[31m.wav", "语音.wav", "$(x) 'q\" %s.wav", "a.raw", "<audio>.wav", "n" * 255]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff\xfe.wav")])
def test_odd_names(name: str, tmp_path: Path) -> None:
    """They load, and messages show them on one line of ASCII."""
    path = tmp_path / name
    try:
        path.write_bytes(wav(STEPS.tobytes()))
    except (OSError, ValueError) as failure:
        pytest.skip(f"this file system refuses the name: {failure}")
    assert len(load_clip(path).waveform) == 64_000
    path.write_text("no sound")
    assert "looks like text" in refusal(path)


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


@pytest.mark.parametrize("kind", ["flac", "mp3", "ogg", "aiff", "wav"])
def test_a_cut_file_gives_what_came_before(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    data = written(path, STEPS, 16_000)
    whole = load_clip(path)
    path.write_bytes(data[: len(data) * 3 // 4])
    clip = load_clip(path)
    assert 1.5 < clip.seconds < 3.5
    assert np.array_equal(clip.waveform[:16_000], whole.waveform[:16_000])
    if kind in ("flac", "mp3"):  # the others say nothing: their headers are repaired, or hold no length
        assert "is cut short or damaged: only" in clip.warnings[0]


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


# --- long input ---------------------------------------------------------------------------------------------------


def test_37_hours_take_no_longer_than_30_seconds(tmp_path: Path) -> None:
    """4 GiB of silence, a hole in the file system: only the beginning is read."""
    path = tmp_path / "long.wav"
    with open(path, "wb") as stream:
        stream.write(wav(claims=2**32 - 100))
        stream.truncate(2**32 - 56)
    begin = time.process_time()
    clip = load_clip(path)
    assert time.process_time() - begin < 5
    assert clip.seconds == 30
    assert clip.total_seconds == (2**32 - 100) / 32_000
    assert "134187.724875 s of 134217.724875 s dropped" in clip.warnings[0]


def test_a_stream_is_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an endless pipe the beginning is used, and what the header then seems to say is not."""
    monkeypatch.setattr(sound_file, "MAX_STREAM_BYTES", 1 << 20)
    clip = load_clip(io.BytesIO(wav(bytes(4 << 20))))
    assert clip.seconds == 30
    assert clip.total_seconds is None
    assert "at least" in clip.warnings[0]
    short = load_clip(io.BytesIO(wav(bytes(4 << 20), rate=192_000)))
    assert short.seconds < 30
    assert short.total_seconds is None
    assert "only the first 1 MiB of a stream are kept" in short.warnings[0]


# --- descriptor 2 -------------------------------------------------------------------------------------------------

NOISE = "import soundfile, sys; soundfile.read(sys.argv[1])"
OURS = "import sys; from qwenaudio_np.audio import load_clip; load_clip(sys.argv[1]); print('after', file=sys.stderr)"
THREADED = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start(); " + OURS


@pytest.fixture
def noisy_mp3(tmp_path: Path) -> Path:
    """A cut MP3, of which libmpg123 complains on descriptor 2."""
    path = tmp_path / "cut.mp3"
    data = written(path, SPEECH_LIKE, 16_000)
    path.write_bytes(data[: len(data) // 2])
    if not stderr_of(NOISE, path):
        pytest.skip("this libsndfile prints nothing about a cut MP3")
    return path


def stderr_of(code: str, path: Path) -> str:
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, check=True).stderr


def test_c_libraries_do_not_write_to_the_terminal(noisy_mp3: Path) -> None:
    assert stderr_of(OURS, noisy_mp3) == "after\n"


def test_descriptor_2_is_left_alone_while_other_threads_run(noisy_mp3: Path) -> None:
    said = stderr_of(THREADED, noisy_mp3)
    assert said.endswith("after\n")
    assert said != "after\n"


@pytest.mark.parametrize("closed", [(2,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("source", ["path", "stream"])
def test_closed_standard_streams_are_no_error(source: str, closed: tuple[int, ...], tmp_path: Path) -> None:
    """The sound file may then itself be opened as descriptor 2."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(STEPS.tobytes()))
    code = (
        "import io, os, pathlib, sys; from qwenaudio_np.audio import load_clip; path = pathlib.Path(sys.argv[1]); "
        f"source = path if {source == 'path'} else io.BytesIO(path.read_bytes()); [os.close(k) for k in {closed}]; "
        "os._exit(42 if len(load_clip(source).waveform) == 64_000 else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT).returncode == 42
