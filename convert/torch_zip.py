"""The zip archives of torch.save, read strictly: exactly what PyTorch writes, and no second way to read the same file.

Layout: one folder with `data.pkl` (the pickle of the state dict), `data/0`, `data/1`, ... (raw storages, uncompressed),
`byteorder`, `version`; then the central directory, the zip64 end records, the end record, and nothing behind it.
Sizes and places are those of the central directory, checked against the file: PyTorch leaves them out of the local headers.
A general zip reader is not used because it accepts what this must refuse: junk around the archive or between its records, names
given twice, local headers that disagree, compressed and overlapping records.

Source: APPNOTE.TXT of PKWARE, sections 4.3 and 4.5; caffe2/serialize/inline_container.cc of PyTorch.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from qwenaudio_np.errors import FormatError, UnsafeError, UnsupportedError, shown

from .source_file import Region, SourceFile
from .state_pickle import MAX_PICKLE_BYTES

MAGIC = b"PK\x03\x04"
MAX_RECORDS = 1 << 14
MAX_DIRECTORY_BYTES = 8 << 20
END, END64, LOCATOR64, CENTRAL, LOCAL = 22, 56, 20, 46, 30  # bytes of each fixed part
_PLAIN_FLAGS = 0x0808  # sizes follow the data; the name is UTF-8

_FETCH = "the archive is damaged or not by torch.save; fetch it again"
# The folder is named after the file that was saved: a time of day in it is no drive.
_NAME = re.compile(
    r"((?![A-Za-z]:)[^/\\\x00-\x1f]{1,200})/(data\.pkl|byteorder|version|data/[0-9]{1,9}|\.[a-z_]{1,40}|\.data/[a-z_]{1,40})"
)


class Record(NamedTuple):
    """An entry of the central directory. `header` is where its local header begins."""

    name: str
    header: int
    size: int
    crc: int


def read_records(file: SourceFile) -> dict[str, Region]:
    """Name without the folder -> place of its bytes, for every record.

    Raises FormatError (not exactly such an archive), UnsafeError (names that point elsewhere), UnsupportedError (other uses
    of the same container: TorchScript, compressed or encrypted records, other byte order).
    """
    count, begin, end = _directory_place(file)
    records = _directory(file.read(begin, end - begin), count, file)
    regions: dict[str, Region] = {}
    folders = set()
    for record in records:
        folder, name = _split(record.name, file)
        folders.add(folder)
        if name in regions:
            raise FormatError(f"{shown(file.path)}: record {shown(record.name)} is there twice; {_FETCH}")
        regions[name] = _region(record, begin, file)
    if len(folders) != 1:
        raise FormatError(f"{shown(file.path)} has records in {len(folders)} folders, expected one; {_FETCH}")
    if "data.pkl" not in regions:
        raise FormatError(f"{shown(file.path)} has no data.pkl, which would be the state dict; {_FETCH}")
    _require_seamless(records, regions, begin, file)
    _refuse_byte_order(regions, file)
    return regions


def pickle_bytes(file: SourceFile, regions: Mapping[str, Region]) -> bytes:
    """The bytes of data.pkl, of bounded size and with the right checksum. Raises FormatError."""
    return _small_record(file, regions["data.pkl"], MAX_PICKLE_BYTES)


def _directory_place(file: SourceFile) -> tuple[int, int, int]:
    """(number of records, begin, end) of the central directory, from the end records at the very end of the file."""
    if file.size < END:
        raise FormatError(f"{shown(file.path)} has {file.size} bytes, too few for an archive; fetch it again")
    tail = file.read(file.size - END, END)
    magic, disk, first_disk, here, count, size, begin, comment = struct.unpack("<4s4H2IH", tail)
    if magic != b"PK\x05\x06" or comment:
        raise FormatError(f"{shown(file.path)} does not end with the end record of an archive: it is cut short or has something behind it")
    end = file.size - END
    if file.size >= END + LOCATOR64 + END64 and file.read(end - LOCATOR64, 4) == b"PK\x06\x07":
        count, size, begin = _end64(file, end - LOCATOR64)
        end -= LOCATOR64 + END64
    elif disk or first_disk or here != count:
        raise FormatError(f"{shown(file.path)} is one part of an archive of several; {_FETCH}")
    if begin + size != end or not 1 <= count <= MAX_RECORDS or size > MAX_DIRECTORY_BYTES:
        raise FormatError(f"{shown(file.path)}: {count} records listed at bytes {begin} to {begin + size}, expected {end}; {_FETCH}")
    return count, begin, end


def _end64(file: SourceFile, locator: int) -> tuple[int, int, int]:
    """(number of records, size, begin) of the directory for archives of any size."""
    _, disk, place, disks = struct.unpack("<4sIQI", file.read(locator, LOCATOR64))
    fields = struct.unpack("<4sQ2H2I4Q", file.read(locator - END64, END64))
    magic, length, _, _, this, first, here, count, size, begin = fields
    fixed = (place, magic, length, disk, disks, this, first, here)
    if fixed != (locator - END64, b"PK\x06\x06", END64 - 12, 0, 1, 0, 0, count):
        raise FormatError(f"{shown(file.path)}: the zip64 end record is not where or what it should be; {_FETCH}")
    return count, size, begin


def _directory(data: bytes, count: int, file: SourceFile) -> list[Record]:
    """Every entry of the central directory, which must fill `data` exactly."""
    records, at = [], 0
    for _ in range(count):
        if len(data) - at < CENTRAL or data[at : at + 4] != b"PK\x01\x02":
            raise FormatError(f"{shown(file.path)}: the list of records is broken at its byte {at}; {_FETCH}")
        fields = struct.unpack("<4s6H3I5H2I", data[at : at + CENTRAL])
        flags, method, crc, packed, size = fields[3], fields[4], *fields[7:10]
        lengths, disk, attributes, header = fields[10:13], fields[13], fields[15], fields[16]
        end = at + CENTRAL + sum(lengths)
        if end > len(data):
            raise FormatError(f"{shown(file.path)}: the list of records is cut short; {_FETCH}")
        name = data[at + CENTRAL : at + CENTRAL + lengths[0]].decode("latin-1")
        _split(name, file)  # first what the record is: a program is usually compressed as well
        extra = data[at + CENTRAL + lengths[0] : end - lengths[2]]
        if flags & ~_PLAIN_FLAGS or method:
            raise UnsupportedError(f"{shown(file.path)}: record {shown(name[:200])} is compressed or encrypted, as torch.save never does")
        if attributes >> 28 == 0xA:  # the upper half is a Unix mode; this is a symbolic link
            raise UnsafeError(f"{shown(file.path)}: record {shown(name[:200])} is a link to another file, which is refused")
        size, packed, header = _widened(extra, size, packed, header)
        if packed != size or disk or lengths[2]:
            raise FormatError(f"{shown(file.path)}: record {shown(name[:200])} has {packed} bytes for {size}; {_FETCH}")
        records.append(Record(name, header, size, crc))
        at = end
    if at != len(data):
        raise FormatError(f"{shown(file.path)}: {len(data) - at} bytes behind the list of {count} records; {_FETCH}")
    return records


def _widened(extra: bytes, *sizes: int) -> list[int]:
    """32-bit fields, those that say "too large" replaced by the 64-bit ones of the extra field, which come in the same order."""
    wide, at = b"", 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<2H", extra[at : at + 4])
        if kind == 1 and not wide:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    numbers = iter(struct.unpack(f"<{len(wide) // 8}Q", wide[: len(wide) // 8 * 8]))
    return [next(numbers, size) if size == 0xFFFFFFFF else size for size in sizes]


def _split(name: str, file: SourceFile) -> tuple[str, str]:
    """(folder, the rest) of a record's name."""
    match = _NAME.fullmatch(name)
    if match and match[1] not in (".", ".."):
        return match[1], match[2]
    if name.endswith("/constants.pkl") or "/code/" in name:
        raise UnsupportedError(f"{shown(file.path)} is TorchScript (it holds {shown(name[:200])}), a program; expected a state dict")
    if ".." in name or "\\" in name or name.startswith("/") or ":" in name:
        raise UnsafeError(f"{shown(file.path)}: record {shown(name[:200])} points outside the archive, which is refused")
    raise FormatError(f"{shown(file.path)}: record {shown(name[:200])} does not belong in a state dict; {_FETCH}")


def _region(record: Record, limit: int, file: SourceFile) -> Region:
    """Where a record's bytes are; its local header must agree with the directory."""
    name = record.name.encode("latin-1")
    if record.header + LOCAL + len(name) > limit:
        raise FormatError(f"{shown(file.path)}: record {shown(record.name)} begins at byte {record.header}, past the data; {_FETCH}")
    header = file.read(record.header, LOCAL + len(name))
    magic, _, flags, method, _, _, _, packed, size, name_length, extra_length = struct.unpack("<4s5H3I2H", header[:LOCAL])
    if magic != MAGIC or header[LOCAL:] != name or name_length != len(name) or flags & ~_PLAIN_FLAGS or method:
        raise FormatError(f"{shown(file.path)}: the header of record {shown(record.name)} disagrees with the list of records; {_FETCH}")
    if any(stated not in (0, 0xFFFFFFFF, record.size) for stated in (packed, size)):
        raise FormatError(f"{shown(file.path)}: record {shown(record.name)} states two sizes, {size} and {record.size}; {_FETCH}")
    begin = record.header + LOCAL + name_length + extra_length
    if begin + record.size > limit:
        raise FormatError(f"{shown(file.path)}: record {shown(record.name)} ends at byte {begin + record.size} of {limit}; {_FETCH}")
    return Region(record.name, begin, begin + record.size, record.crc)


def _require_seamless(records: list[Record], regions: Mapping[str, Region], limit: int, file: SourceFile) -> None:
    """Records one behind the other from the first byte up to the list of records, with no room for anything between them."""
    ordered = sorted(zip((record.header for record in records), regions.values(), strict=True), key=lambda pair: pair[0])
    if ordered[0][0]:
        raise FormatError(f"{shown(file.path)}: the first record begins at byte {ordered[0][0]}, expected 0; {_FETCH}")
    for (_, region), follows in zip(ordered, [*(header for header, _ in ordered[1:]), limit], strict=True):
        if follows != region.end and not _is_descriptor(file, region, follows):
            what = "overlaps" if follows < region.end else "leaves a gap before"
            raise FormatError(f"{shown(file.path)}: record {shown(region.name)} {what} what follows at byte {follows}; {_FETCH}")


def _is_descriptor(file: SourceFile, region: Region, follows: int) -> bool:
    """Whether exactly the descriptor that states a record's checksum and sizes once more stands between it and byte `follows`."""
    size = region.end - region.begin
    layout = {16: "<4s3I", 24: "<4sI2Q"}.get(follows - region.end)  # the longer one where an archive is larger than 4 GB
    if layout is None or (follows - region.end == 16 and size > 0xFFFFFFFF):
        return False
    return file.read(region.end, follows - region.end) == struct.pack(layout, b"PK\x07\x08", region.crc, size, size)


def _refuse_byte_order(regions: Mapping[str, Region], file: SourceFile) -> None:
    """Old archives do not say; they come from little-endian machines."""
    order = _small_record(file, regions["byteorder"], 16) if "byteorder" in regions else b"little"
    if order != b"little":
        raise UnsupportedError(f"{shown(file.path)}: byte order {shown(order.decode('latin-1'))}, expected 'little'; save it on a PC")


def _small_record(file: SourceFile, region: Region, limit: int) -> bytes:
    size = region.end - region.begin
    if size > limit:
        raise FormatError(f"{shown(file.path)}: {shown(region.name)} has {size} bytes, expected at most {limit}; {_FETCH}")
    data = file.read(region.begin, size)
    if zlib.crc32(data) != region.crc:
        raise FormatError(f"{shown(file.path)}: the checksum of {shown(region.name)} is wrong; {_FETCH}")
    return data
