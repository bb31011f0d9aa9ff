"""Zip files of torch.save: there is one way to read them, and every way the container can lie is refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qwenaudio_np.errors import FormatError, MismatchError, QwenAudioError, UnsafeError, UnsupportedError
from tests.torch_fixtures import FOLDER, archive, number, state, storage, tensor, torch_zip
from tests.torch_tools import GOOD, SIX, read, refuser


@pytest.fixture()
def refused(tmp_path: Path) -> Callable[..., str]:
    return refuser(tmp_path)


def patched(data: bytes, old: bytes, new: bytes, count: int = 1) -> bytes:
    assert data.count(old) >= 1 and len(old) == len(new)
    return data.replace(old, new, count)


ZIP = torch_zip(GOOD, {"0": SIX})
END = ZIP.rindex(b"PK\x05\x06")
DIRECTORY = ZIP.index(b"PK\x01\x02")


def last_field(offset: int, value: bytes) -> bytes:
    """The end record with bytes replaced."""
    return ZIP[: END + offset] + value + ZIP[END + offset + len(value) :]


def central_field(offset: int, value: bytes, name: bytes = b"archive/data/0") -> bytes:
    """A field of the central entry of a record, replaced."""
    at = ZIP.index(name, DIRECTORY) - 46 + offset
    return ZIP[:at] + value + ZIP[at + len(value) :]


def with_link() -> bytes:
    info = zipfile.ZipInfo("archive/data/0")
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", GOOD)
        file.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def with_comment() -> bytes:
    inner = torch_zip(GOOD, {"0": SIX})
    return last_field(20, struct.pack("<H", len(inner))) + inner


def with_junk() -> bytes:
    """Something before the archive, and places that count it in."""
    buffer = io.BytesIO(b"#!/bin/sh\n")
    with zipfile.ZipFile(buffer, "a") as file:
        for name, data in {"a/data.pkl": GOOD, "a/data/0": SIX}.items():
            file.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def with_overlap() -> bytes:
    """Record 1 lies within the bytes of record 0, header and all; every name, size and checksum is right."""
    alone = archive({"a/data/1": SIX})
    inner = alone[: alone.index(b"PK\x01\x02")]
    both = state({"v": tensor(storage("0", len(inner) // 2, "HalfStorage"), 0, (1,), (1,)), "w": tensor(storage("1"))})
    whole = archive({"a/data.pkl": both, "a/data/0": inner, "a/data/1": SIX})
    entry = whole.index(b"a/data/1", whole.index(b"PK\x01\x02")) - 46
    return whole[: entry + 42] + struct.pack("<I", whole.index(inner)) + whole[entry + 46 :]


def with_gap(between: bytes, before: bytes = b"PK\x01\x02") -> bytes:
    """Bytes in front of the list of records, or of a record; every place that is stated counts them in."""
    at = ZIP.index(before)
    moved = bytearray(ZIP[:at] + between + ZIP[at:])
    directory = DIRECTORY + len(between)
    struct.pack_into("<I", moved, moved.rindex(b"PK\x05\x06") + 16, directory)
    entry = directory
    while moved[entry : entry + 4] == b"PK\x01\x02":
        (header,), lengths = struct.unpack_from("<I", moved, entry + 42), struct.unpack_from("<3H", moved, entry + 28)
        struct.pack_into("<I", moved, entry + 42, header + len(between) * (header >= at))
        entry += 46 + sum(lengths)
    return bytes(moved)


SECOND = ZIP[ZIP.index(b"PK\x03\x04", 4) :][:60]  # the header of the record behind the pickle
TWICE = struct.pack("<I", zlib.crc32(b"3\n")), struct.pack("<I", 2), struct.pack("<Q", 2)  # of the last record, its version


@pytest.mark.parametrize("descriptor", [b"PK\x07\x08" + TWICE[0] + 2 * TWICE[1], b"PK\x07\x08" + TWICE[0] + 2 * TWICE[2]])
def test_descriptors_of_either_width(descriptor: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(with_gap(descriptor))
    np.testing.assert_array_equal(read(path)[1]["w"], np.arange(6, dtype=np.float32).reshape(2, 3))


ZIPS: dict[str, tuple[bytes, type[QwenAudioError]]] = {
    "a gap before the list": (with_gap(b"hidden"), FormatError),
    "a gap between records": (with_gap(b"hidden", SECOND), FormatError),
    "a record that is not listed": (with_gap(archive({"archive/data/7": SIX})[: 30 + 14 + 24]), FormatError),
    "a descriptor of another checksum": (with_gap(b"PK\x07\x08" + bytes(4) + 2 * TWICE[1]), FormatError),
    "a descriptor of another size": (with_gap(b"PK\x07\x08" + TWICE[0] + TWICE[1] + bytes(4)), FormatError),
    "two descriptors": (with_gap(2 * (b"PK\x07\x08" + TWICE[0] + 2 * TWICE[1])), FormatError),
    "junk before": (b"junk" + ZIP, FormatError),
    "zeros before": (bytes(100) + ZIP, FormatError),
    "a script before": (with_junk(), FormatError),
    "junk after": (ZIP + b"junk", FormatError),
    "comment with a second archive": (with_comment(), FormatError),
    "comment announced": (last_field(20, b"\x01\x00"), FormatError),
    "two disks": (last_field(4, b"\x01\x00"), FormatError),
    "fewer records than there are": (last_field(8, b"\x02\x00\x02\x00"), FormatError),
    "more records than there are": (last_field(8, b"\x09\x00\x09\x00"), FormatError),
    "no records": (b"PK\x05\x06" + bytes(18), FormatError),
    "directory size": (last_field(12, b"\x01"), FormatError),
    "directory place": (last_field(16, b"\x01"), FormatError),
    "60,000 records": (last_field(8, struct.pack("<2H", 60000, 60000)), FormatError),
    "two folders": (archive({"a/data.pkl": GOOD, "b/data/0": SIX}), FormatError),
    "two pickles in two folders": (archive({"a/data.pkl": GOOD, "b/data.pkl": GOOD, "a/data/0": SIX}), FormatError),
    "no folder": (archive({"data.pkl": GOOD, "data/0": SIX}), FormatError),
    "no pickle": (archive({"a/data/0": SIX}), FormatError),
    "a parent folder": (archive({"../data.pkl": GOOD}), UnsafeError),
    "a way out": (archive({"a/data.pkl": GOOD, "a/../../x": SIX}), UnsafeError),
    "an absolute name": (archive({"/etc/passwd": GOOD}), UnsafeError),
    "a drive": (archive({"C:/data.pkl": GOOD}), UnsafeError),
    "a backslash": (archive({"a\\..\\data.pkl": GOOD}), UnsafeError),
    "an unknown record": (archive({"a/data.pkl": GOOD, "a/data/0": SIX, "a/run.py": b"x"}), FormatError),
    "a link": (with_link(), UnsafeError),
    "local name differs": (patched(ZIP, b"archive/data/0", b"archive/data/1"), FormatError),
    "local size differs": (ZIP.replace(struct.pack("<2I", 24, 24), struct.pack("<2I", 20, 20), 1), FormatError),
    "local method": (ZIP.replace(b"PK\x03\x04\x14\x00\x00\x00\x00\x00", b"PK\x03\x04\x14\x00\x00\x00\x08\x00", 1), FormatError),
    "compressed": (archive({"a/data.pkl": GOOD, "a/data/0": bytes(24)}, compression=zipfile.ZIP_DEFLATED), UnsupportedError),
    "a bomb": (archive({"a/data.pkl": GOOD, "a/data/0": bytes(1 << 20)}, compression=zipfile.ZIP_DEFLATED), UnsupportedError),
    "LZMA": (archive({"a/data.pkl": GOOD, "a/data/0": bytes(24)}, compression=zipfile.ZIP_LZMA), UnsupportedError),
    "encrypted": (central_field(8, b"\x01\x00"), UnsupportedError),
    "method 99": (central_field(10, b"\x63\x00"), UnsupportedError),
    "size of 4 GB": (central_field(20, b"\xfe\xff\xff\xff\xfe\xff\xff\xff"), FormatError),
    "zip64 size without its field": (central_field(20, b"\xff\xff\xff\xff\xff\xff\xff\xff"), FormatError),
    "two sizes": (central_field(20, struct.pack("<2I", 24, 23)), FormatError),
    "place past the end": (central_field(42, b"\xff\xff\xff\x7f"), FormatError),
    "a record within another": (with_overlap(), FormatError),
    "two records in one place": (central_field(42, bytes(4)), FormatError),
    "wrong checksum of a storage": (central_field(16, b"abcd"), FormatError),
    "wrong checksum of the pickle": (central_field(16, b"abcd", b"archive/data.pkl"), FormatError),
    "changed weights": (patched(ZIP, SIX, SIX[::-1]), FormatError),
    "byte order big": (torch_zip(GOOD, {"0": SIX}).replace(b"little", b"BIGGER"), FormatError),  # its checksum no longer fits
    "storage missing": (torch_zip(GOOD, {}), MismatchError),
    "storage too short": (torch_zip(GOOD, {"0": SIX[:-1]}), MismatchError),
    "storage too long": (torch_zip(GOOD, {"0": SIX + b"\0"}), MismatchError),
    "storage that no tensor uses": (torch_zip(GOOD, {"0": SIX, "1": b"payload"}), MismatchError),
    "second pickle after the first": (torch_zip(GOOD + GOOD, {"0": SIX}), FormatError),
}


@pytest.mark.parametrize("case", ZIPS)
def test_bad_archives(case: str, refused: Callable[..., str]) -> None:
    refused(*ZIPS[case])


@pytest.mark.parametrize("folder", ["12:30", "run 1: best", "m..v2", "...", "m\xf6del"])
def test_folders_named_after_any_file(folder: str, tmp_path: Path) -> None:
    """PyTorch calls the folder like the file it was told to write."""
    path = tmp_path / "model.bin"
    path.write_bytes(torch_zip(GOOD, {"0": SIX}, folder=folder))
    assert list(read(path)[1]) == ["w"]


def test_what_is_said_of_folders_and_kinds(refused: Callable[..., str]) -> None:
    assert "in 2 folders, expected one" in refused(*ZIPS["two folders"])
    assert "has no data.pkl" in refused(*ZIPS["no pickle"])
    assert "'w' is an int, expected a tensor" in refused(torch_zip(state({"w": number(5)})), FormatError)
    assert "'w' is a NoneType" in refused(torch_zip(state({"w": b"N"})), FormatError)


def test_a_name_given_twice(refused: Callable[..., str]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        for data in (GOOD, b"other"):
            file.writestr("a/data.pkl", data)
    assert "twice" in refused(buffer.getvalue())


@pytest.mark.parametrize("order", [b"big", b"middle"])
def test_other_byte_order(order: bytes, refused: Callable[..., str]) -> None:
    records = {"a/data.pkl": GOOD, "a/byteorder": order, "a/data/0": SIX}
    assert "byte order" in refused(archive(records), UnsupportedError)


def test_an_archive_without_byte_order_is_little_endian(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(archive({"a/data.pkl": GOOD, "a/data/0": SIX}))
    assert read(tmp_path / "m.bin")[1]["w"].sum() == 15


def test_every_cut_of_a_real_archive(refused: Callable[..., str]) -> None:
    whole = (FOLDER / "zip.bin").read_bytes()
    for length in range(1, len(whole), 37):
        refused(whole[:length])


def test_checksum_is_the_usual_one() -> None:
    """zlib's CRC-32 is what zip uses; the check value of its definition."""
    assert zlib.crc32(b"123456789") == 0xCBF43926
