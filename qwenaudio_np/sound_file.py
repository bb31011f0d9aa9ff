"""Any sound file or stream -> blocks of frames, read once, forward only and within bounded memory.

What a header promises is never believed: it sets no size and ends no loop. Reading stops when the caller has
enough, so hours of sound cost no more than half a minute. Decoding is libsndfile's, through soundfile.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from qwenaudio_np.errors import AudioError, shown, value_of
from qwenaudio_np.files import chunks, open_regular, readable, refuse_impostor
from qwenaudio_np.ogg import CAPTURE, lacks_its_last_page

MIN_RATE, MAX_RATE = 1, 10_000_000  # Hz; broken headers reach 2^31 - 1
MAX_STREAM_BYTES = 512 << 20  # kept of a pipe; a file given by name has no limit
BLOCK_VALUES = 1 << 20  # numbers held by one block, all channels together: 8 MiB
BLOCKS_PER_SECOND = 16  # small blocks, because a decoding error loses the block it happens in
UNKNOWN_FRAMES = 1 << 62  # libsndfile answers 2^63 - 1 where the header gives no length
SNIFFED_BYTES = 64
# Where a header of WAV, RF64, W64, AIFF or AU promises more bytes than there are, libsndfile counts those, and notes it in its log.
PROMISED = re.compile(r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
# What writes to a pipe cannot know the length, and promises about as much as the field holds.
UNKNOWN_BYTES = (1 << 31, 1 << 32)
NEAR = 1 << 16

# What a file that cannot be decoded is, by its first bytes at an offset. files.refuse_impostor knows web pages.
_KINDS = (
    (0, b"RIFF", "a WAV file, broken or in a rare encoding"),
    (0, b"fLaC", "a broken FLAC file"),
    (0, b"OggS", "an OGG file, broken or neither Vorbis, Opus nor FLAC"),
    (0, b"ID3", "a broken MP3 file"),
    (0, b"\xff\xfb", "a broken MP3 file"),
    (0, b"\xff\xf3", "a broken MP3 file"),
    (0, b"FORM", "an AIFF file, broken or in a rare encoding"),
    (0, b"caff", "a CAF file, broken or in a rare encoding"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"GGUF", "a GGUF model"),
    (4, b"ftyp", "MP4, M4A or MOV, which libsndfile cannot decode"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM, which libsndfile cannot decode"),
    (0, b"0&\xb2u", "WMA or ASF, which libsndfile cannot decode"),
    (0, b"#!AMR", "AMR, which libsndfile cannot decode"),
)


class Recording:
    """Sound at its own rate and with its own channels, handed out block by block.

    `frames` counts what was handed out, `ended` is true once there was no more, `claimed` is the header's count
    or None, `partial` is true if the end may be missing, and `damage` says why reading ended before it should have.
    """

    def __init__(self, name: str, rate: int, channels: int, claimed: int | None, read: Callable[[int], NDArray[Any]]) -> None:
        if not MIN_RATE <= rate <= MAX_RATE:
            given, known = value_of(rate), f"{MIN_RATE} to {MAX_RATE}"
            raise AudioError(f"{shown(name)} has a sample rate of {given} Hz, expected {known}; convert it to 16000 Hz")
        self.name, self.rate, self.claimed = name, rate, claimed
        self.frames, self.ended, self.partial, self.damage = 0, False, False, ""
        self.missing = ""  # what tells, before any of it is read, that the end is not there
        self._read = read
        self._block = max(1, min(rate // BLOCKS_PER_SECOND, BLOCK_VALUES // channels))

    def blocks(self, limit: int) -> Iterator[NDArray[np.float64]]:
        """Yield [frames, channels] until `limit` frames are out, the sound ends, or decoding fails.

        A failure before the first frame raises AudioError; later it is kept in `damage`.
        """
        while self.frames < limit and not self.ended:
            try:
                block = self._read(min(self._block, limit - self.frames))
            except soundfile.SoundFileError as failure:
                self._fail(failure)
                return
            self.ended = len(block) == 0
            self.frames += len(block)
            if not self.ended:
                yield block
        if self.ended and self.partial:
            self.damage = f"only the first {MAX_STREAM_BYTES >> 20} MiB of a stream are kept"
        # The length of an MP3 without a length header is an estimate, so a tenth of a second is forgiven.
        if self.ended and self.claimed is not None and self.claimed - self.frames > self.rate / 10:
            self.damage = f"its header promises {self.claimed} frames"
        if self.ended:
            self.damage = self.damage or self.missing

    def _fail(self, failure: soundfile.SoundFileError) -> None:
        if self.frames == 0:
            raise AudioError(f"{shown(self.name)} cannot be decoded (libsndfile: {_reason(failure)}); fetch or convert it again") from None
        self.ended, self.damage = True, f"libsndfile: {_reason(failure)}"


class _ForwardOnly(soundfile.SoundFile):
    """A SoundFile that never seeks.

    soundfile seeks after every read of a seekable file. That changes what an MP3 decodes to (its frames borrow
    bits from earlier ones), fails for DWVW, and cuts each read at the header's length.
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def open_recording(source: str | os.PathLike[str] | BinaryIO) -> Iterator[Recording]:
    """Open a file by name, or a binary stream such as `sys.stdin.buffer`, as a Recording.

    Raises AudioError if it is no regular file, empty, or nothing that libsndfile decodes.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        with open_regular(name, AudioError) as (descriptor, _):
            with readable(name, AudioError):
                head = os.read(descriptor, SNIFFED_BYTES)
                os.lseek(descriptor, 0, os.SEEK_SET)
                cut = _is_cut(descriptor, head)
            # A copy, because libsndfile 1.2 closes the descriptor it was given when it cannot open the sound.
            with _decoding(name, os.dup(descriptor), head, cut) as recording:
                yield recording
        return
    name = str(getattr(source, "name", "<stream>"))
    held = _hold(source, name)
    head = held.read(SNIFFED_BYTES)
    held.seek(0)
    with _decoding(name, held, head, _is_cut(held, head)) as recording:
        if held.getbuffer().nbytes >= MAX_STREAM_BYTES:
            recording.claimed, recording.partial = None, True  # libsndfile counted only what was kept
        yield recording


def _is_cut(handle: int | BytesIO, head: bytes) -> bool:
    """Whether it is an OGG file without its end, which libsndfile passes over."""
    return head.startswith(CAPTURE) and lacks_its_last_page(handle)


@contextmanager
def _decoding(name: str, handle: int | BytesIO, head: bytes, cut: bool) -> Iterator[Recording]:
    with _quiet_c_libraries(handle):
        try:
            sound = _ForwardOnly(handle)
        except soundfile.SoundFileError as failure:
            refuse_impostor(name, head, AudioError)
            raise AudioError(
                f"{shown(name)} is not a sound file that can be decoded: it looks like {_kind(head)} (libsndfile: {_reason(failure)}); "
                "expected WAV, FLAC, OGG, MP3, AIFF or another format of libsndfile; convert it first"
            ) from None
        with sound:
            claimed = sound.frames if 0 <= sound.frames < UNKNOWN_FRAMES else None

            def read(frames: int) -> NDArray[np.float64]:
                return sound.read(frames, dtype="float64", always_2d=True)

            recording = Recording(name, sound.samplerate, sound.channels, claimed, read)
            recording.missing = "its last OGG page is missing" if cut else _promised(sound.extra_info)
            yield recording


def _promised(log: str) -> str:
    """What the header promises and what there is, in bytes of sound, where this is less."""
    found = PROMISED.search(log)
    promised, there = map(int, found.groups()) if found else (0, 0)
    if any(abs(promised - most) <= NEAR for most in UNKNOWN_BYTES) or not there < promised < UNKNOWN_FRAMES:
        return ""
    return f"its header promises {promised} bytes of sound, {there} are there"


def _hold(stream: BinaryIO, name: str) -> BytesIO:
    """The stream's first bytes, as many as are kept, rewound. libsndfile must seek, which a pipe cannot."""
    held = BytesIO()
    try:
        for chunk in chunks(stream, MAX_STREAM_BYTES):
            held.write(chunk)
    except (AttributeError, OSError, TypeError, ValueError) as failure:
        raise AudioError(f"cannot read sound from {shown(name)}: {shown(failure)}; expected a path or a binary stream") from None
    if held.tell() == 0:
        raise AudioError(f"{shown(name)} is empty (0 bytes), expected a sound file")
    held.seek(0)
    return held


def _reason(failure: soundfile.SoundFileError) -> str:
    text = str(getattr(failure, "error_string", failure))
    if text.startswith("File does not exist"):  # what libsndfile says of an MP3 without one whole frame
        return "no audio frame found"
    return " ".join(text.split()).rstrip(".")


def _kind(head: bytes) -> str:
    for offset, magic, kind in _KINDS:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if all(0x20 <= byte < 0x7F or byte in b"\t\n\r\f" for byte in head):
        return "text"
    return f"no known kind, first bytes {head[:8].hex(' ')}"


@contextmanager
def _silenced(descriptor: int) -> Iterator[None]:
    saved = os.dup(descriptor)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, descriptor)
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(null)
        os.close(saved)


def _quiet_c_libraries(handle: int | BytesIO) -> Any:
    """Keep libmpg123's remarks, which it writes straight to descriptor 2, out of the user's terminal.

    Descriptor 2 belongs to the whole process, so this is done only while no other Python thread could be writing.
    Where the caller has closed it (`>&- 2>&-`), its number may have gone to the sound file itself.
    """
    if threading.active_count() > 1 or handle == 2:
        return nullcontext()
    try:
        os.fstat(2)
    except OSError:  # closed: nothing to keep quiet
        return nullcontext()
    return _silenced(2)
