"""Decoding: every format libsndfile writes, paths and streams, long input, and nothing on the terminal from C libraries."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qwenaudio_np import sound_file
from qwenaudio_np.audio import load_clip
from tests.sound_tools import SPEECH_LIKE, STEPS, refusal, steps_of, wav, written

ROOT = Path(__file__).resolve().parent.parent

# RAW has no header to read and SD2 keeps its header in a second file.
FORMATS = sorted(set(soundfile.available_formats()) - {"RAW", "SD2"})
LOSSLESS = {"PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32", "DWVW_16", "DWVW_24", "DPCM_16"}


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
