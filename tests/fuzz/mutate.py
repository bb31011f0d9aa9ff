"""Inputs that are almost right: the seeds of the corpus with a few edits, a pure function of (kind, seed, number)."""

from __future__ import annotations

import functools
import random
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz.targets import CORPUS
from tests.torch_fixtures import FOLDER

REAL = {"torch": [FOLDER / "zip.bin", FOLDER / "zip_protocol_4.bin", FOLDER / "older.bin"]}  # written by PyTorch
SAME = {"packed": "pickle"}  # kinds that share the seeds of another

NUMBERS = [0, 1, 2, 7, 8, 63, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**48, 2**48 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
JSON_WORDS = [b"-", b"-1", b"1e999", b"NaN", b"null", b"true", b"0.5", b"9" * 30, b"9" * 5000, b"[" * 3000, b'"', b"{}", b"[]", b",", b":"]
JSON_WORDS += [b"\\ud800", b"\\u0000", b"\xf0\x9f", b"\xef\xbb\xbf", b'"__metadata__":{}', b'"F32"', b'"../x"', b'"/dev/zero"']
PICKLE_WORDS = [bytes([code]) for code in b"\x80\x95(NJKMG\x8aX\x8c)t\x85\x86\x87]ae}suqrhj\x94c\x93QRb.io\x81\x920"]
PICKLE_WORDS += [b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n"]
PICKLE_WORDS += [b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n)R"]
PICKLE_WORDS += [b"X\xff\xff\xff\x7f", b"\x8c\x01a", b"h\x00", b"q\x00", b"}(", b"ubRQ", b"\x8a\xffx"]
ZIP_WORDS = [b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08", b"data.pkl", b"../", b"data/0"]
LINES = [b"\n", b"\r\n", b" ", b"\t", b"=", b"AA== 0\n", b"AAA= 9999999999999\n", b"gICA 1\n", b"\xff", b"-1", b"0.5", b"9" * 5000]
WORDS = {"pickle": PICKLE_WORDS, "packed": PICKLE_WORDS, "torch": PICKLE_WORDS + ZIP_WORDS, "vocabulary": LINES}

Edit = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def made(kind: str, seed: int, number: int) -> bytes:
    """The input of that number, not empty."""
    rng = random.Random(f"{kind} {seed} {number}")
    data = rng.choice(seeds(kind))
    if kind == "header" and rng.randrange(8):
        size = int.from_bytes(data[:8], "little")
        text = _edited(data[8 : 8 + size], kind, rng)
        return struct.pack("<Q", len(text)) + text + data[8 + size :]  # a length that fits, so that the text is read
    return _edited(data, kind, rng) or b"x"


@functools.cache
def seeds(kind: str) -> list[bytes]:
    """The corpus of a kind, in the order of the names."""
    paths = sorted((CORPUS / SAME.get(kind, kind)).iterdir()) + REAL.get(kind, [])
    return [Path(path).read_bytes() for path in paths]


def _edited(data: bytes, kind: str, rng: random.Random) -> bytes:
    changed, words = bytearray(data), WORDS.get(kind, JSON_WORDS)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if rng.randrange(20) == 0:
            other = rng.choice(seeds(kind))
            changed[rng.randrange(len(changed) + 1) :] = other[rng.randrange(len(other)) :]
        rng.choice(EDITS)(changed, rng, words)
    return bytes(changed)


def _place(data: bytearray, rng: random.Random) -> int:
    """Anywhere, or near the end, where archives have their lists."""
    return rng.randrange(len(data) + 1) if rng.randrange(3) else max(0, len(data) - rng.randrange(600))


def flip(data: bytearray, rng: random.Random, words: Sequence[bytes]) -> None:
    """One bit."""
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def replace_byte(data: bytearray, rng: random.Random, words: Sequence[bytes]) -> None:
    """One byte by another."""
    at = _place(data, rng)
    data[at : at + 1] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))])


def replace_field(data: bytearray, rng: random.Random, words: Sequence[bytes]) -> None:
    """A whole number of 2, 4 or 8 bytes by one at the edge of some range."""
    at, layout = _place(data, rng), rng.choice("HIQ")
    value = (rng.choice(NUMBERS) + rng.randrange(-1, 2)) % (1 << 8 * struct.calcsize(layout))
    data[at : at + struct.calcsize(layout)] = struct.pack("<" + layout, value)


def replace_digits(data: bytearray, rng: random.Random, words: Sequence[bytes]) -> None:
    """A written number by another one."""
    found = [match.span() for match in re.finditer(rb"[0-9]+", data)]
    if found:
        begin, end = rng.choice(found)
        data[begin:end] = b"%d" % (rng.choice(NUMBERS) if rng.randrange(2) else int(data[begin:end][:18]) + rng.choice((-1, 1)))


def remove(data: bytearray, rng: random.Random, words: Sequence[bytes]) -> None:
    """A few bytes, or everything from some byte on."""
    at = _place(data, rng)
    del data[at : at + rng.randint(1, 9) if rng.randrange(10) else None]


def repeat(data: bytearray, rng: random.Random, words: Sequence[bytes]) -> None:
    """A stretch once more, behind itself or elsewhere."""
    begin = _place(data, rng)
    piece = data[begin : begin + rng.choice((1, 8, 30, 200))]
    at = begin if rng.randrange(2) else _place(data, rng)
    data[at:at] = piece


def insert_word(data: bytearray, rng: random.Random, words: Sequence[bytes]) -> None:
    """Something that means something in this kind of input, put in or over what is there."""
    at, word = _place(data, rng), rng.choice(words)
    data[at : at + rng.choice((0, 0, 1, len(word)))] = word


EDITS: Sequence[Edit] = (flip, replace_byte, replace_field, replace_digits, remove, repeat, insert_word, insert_word)
