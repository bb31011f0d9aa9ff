"""One .safetensors file: a strict reader of its header, and its tensors by memory map.

Layout: 8 bytes little-endian header length, a JSON header (padded with spaces), then the tensors' bytes without gaps.
The `safetensors` library is not used for reading because its NumPy side has no bfloat16 and returns copies; here a
tensor is a view of the mapped file, so a model of 17 GB opens at once and is paged in as it is used.
The library is the independent writer and reader of the tests.

A mapped file must stay as it is while the model runs: cutting it short under a running process ends that process.
Source: the format's description in the README of github.com/huggingface/safetensors, format section.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwenaudio_np.errors import FormatError, ResourceError, UnsupportedError, shown
from qwenaudio_np.files import open_regular, reason, refuse_impostor
from qwenaudio_np.json_fields import parse_json

MAX_HEADER_BYTES = 16_000_000  # 100 bytes to a tensor are usual; the format allows 100 MB, which can unfold into 2.4 GB of empty lists
MAX_NAME_LENGTH = 512
MAX_DIMENSIONS = 8
MAX_SIZE = 1 << 48

# The format's names of element types -> how NumPy holds them. NumPy has no bfloat16: its bits come as uint16.
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}

_FETCH = "the file is damaged or not safetensors; fetch it again"
_IMPOSTORS = (
    (b"PK\x03\x04", "a zip or torch.save archive; convert it to safetensors first"),
    (b"GGUF", "a GGUF file; expected the original's safetensors layout"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
)


@dataclass(frozen=True)
class Entry:
    """One tensor of a header. `begin` and `end` count bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.end - self.begin

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says about itself: tensors in the order of their bytes, and free text."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]
    file_bytes: int


@dataclass(frozen=True)
class Stored:
    """A tensor as stored. dtype "BF16" comes as a uint16 array of the upper halves of float32 values."""

    dtype: str
    array: np.ndarray


class SafetensorsFile:
    """An open file: `header` checked whole, tensors as read-only views of one map that lives as long as they do."""

    def __init__(self, path: str | Path) -> None:
        """Raises FormatError or UnsupportedError for a bad file, ResourceError if it cannot be mapped."""
        self.path = Path(path)
        with open_regular(path) as (descriptor, size), _translated(path):
            self.header = _parse_file(descriptor, size, path)
            self._map = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)

    def tensor(self, name: str) -> Stored:
        """The named tensor, [shape of the header]; KeyError if there is none."""
        entry = self.header.tensors[name]
        flat = np.frombuffer(self._map, DTYPES[entry.dtype], count=entry.parameters, offset=entry.begin)
        if not flat.flags.aligned:
            # A header length that is no multiple of the element size is legal, but compiled kernels need alignment.
            with _translated(self.path):
                flat = flat.copy()
            flat.flags.writeable = False
        return Stored(entry.dtype, flat.reshape(entry.shape))


def open_safetensors(path: str | Path) -> dict[str, Stored]:
    """All tensors of a file by name. Raises as SafetensorsFile does."""
    file = SafetensorsFile(path)
    return {name: file.tensor(name) for name in file.header.tensors}


def read_header(path: str | Path) -> Header:
    """The checked header alone, without mapping the file. Raises FormatError or UnsupportedError."""
    with open_regular(path) as (descriptor, size):
        return read_open_header(descriptor, size, path)


def read_open_header(descriptor: int, size: int, path: str | Path) -> Header:
    """The same of a regular file that is open already, of `size` bytes; `path` is for messages. Moves the descriptor's position."""
    with _translated(path):
        os.lseek(descriptor, 0, os.SEEK_SET)
        return _parse_file(descriptor, size, path)


@contextmanager
def _translated(path: str | Path) -> Iterator[None]:
    """The one place where errors of parsing and mapping become ours."""
    try:
        yield
    except MemoryError:
        raise ResourceError(f"not enough memory to open {shown(path)}; close other programs or raise the limit (ulimit -v)") from None
    except OSError as failure:
        if failure.errno == errno.ENOMEM:
            raise ResourceError(f"not enough address space to map {shown(path)}; raise the limit (ulimit -v)") from None
        raise FormatError(f"cannot read {shown(path)}: {reason(failure)}") from None
    except (ValueError, OverflowError, RecursionError, struct.error) as failure:  # UnicodeDecodeError is a ValueError
        raise FormatError(f"{shown(path)}: {type(failure).__name__} in the header; {_FETCH}") from None


def _parse_file(descriptor: int, size: int, path: str | Path) -> Header:
    """Read and check the header of an open file of `size` bytes."""
    head = _read_exactly(descriptor, min(size, 64), path)
    _refuse_impostor(path, head)
    if size < 10:  # the length and at least "{}"
        raise FormatError(f"{shown(path)} has {size} bytes, too few for a safetensors header; {_FETCH}")
    (length,) = struct.unpack("<Q", head[:8])
    if length > MAX_HEADER_BYTES or length < 2:
        raise FormatError(f"{shown(path)}: header length {length}, expected 2 to {MAX_HEADER_BYTES} bytes; {_FETCH}")
    if 8 + length > size:
        raise FormatError(f"{shown(path)}: header of {length} bytes in a file of {size}: it is cut short; fetch it again")
    if head[8:9] != b"{":
        raise FormatError(f"{shown(path)}: header begins with {shown(head[8:9])}, expected '{{'; {_FETCH}")
    os.lseek(descriptor, 8, os.SEEK_SET)
    text = _read_exactly(descriptor, length, path).decode("utf-8")
    return _parse_header(parse_json(text, where=str(path)), 8 + length, size, path)


def _read_exactly(descriptor: int, count: int, path: str | Path) -> bytes:
    """`count` bytes from the descriptor's position; fewer mean that the file shrank since its size was read."""
    pieces = []
    while count:
        piece = os.read(descriptor, count)
        if not piece:
            raise FormatError(f"{shown(path)} became shorter while it was read; fetch it again")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _refuse_impostor(path: str | Path, head: bytes) -> None:
    """Name what is often found in a file called .safetensors."""
    refuse_impostor(path, head)
    for magic, what in _IMPOSTORS:
        if head.startswith(magic):
            raise FormatError(f"{shown(path)} is {what}")
    # 0x80 0x02 also begins a good file whose header has 640 bytes, hence the look at the brace.
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and head[8:9] != b"{":
        raise FormatError(f"{shown(path)} is a pickle, which is never opened; convert it to safetensors first")


def _parse_header(fields: dict[str, Any], start: int, size: int, path: str | Path) -> Header:
    """Entries from JSON; their byte ranges must cover start..size without hole or overlap."""
    metadata = fields.pop("__metadata__", {})
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise FormatError(f"{shown(path)}: __metadata__ must map names to text; {_FETCH}")
    entries = [(name, _parse_entry(name, value, start, path)) for name, value in fields.items()]
    entries.sort(key=lambda item: (item[1].begin, item[1].end))
    position = start
    for name, entry in entries:
        if entry.begin != position:
            what = "overlaps the tensor before it" if entry.begin < position else "leaves a hole before it"
            raise FormatError(f"{shown(path)}: tensor {shown(name)} {what} (byte {entry.begin}, expected {position}); {_FETCH}")
        position = entry.end
    if position != size:
        raise FormatError(f"{shown(path)} has {size} bytes, its header describes {position}: it is cut short or damaged; fetch it again")
    return Header(dict(entries), metadata, size)


def _parse_entry(name: str, value: Any, start: int, path: str | Path) -> Entry:
    """One tensor's dtype, shape and byte range, each of the exact JSON type."""
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise FormatError(f"{shown(path)}: tensor name {shown(name[:80])} must be 1 to {MAX_NAME_LENGTH} printable characters; {_FETCH}")
    where = f"{shown(path)}: tensor {shown(name)}"
    if type(value) is not dict or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where} must have exactly dtype, shape and data_offsets; {_FETCH}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if type(dtype) is not str:
        raise FormatError(f"{where}: dtype must be text; {_FETCH}")
    if dtype not in DTYPES:
        raise UnsupportedError(f"{where}: dtype {shown(dtype[:40])} is not known, expected one of {', '.join(DTYPES)}")
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise FormatError(f"{where}: shape must be a list of at most {MAX_DIMENSIONS} whole numbers; {_FETCH}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FormatError(f"{where}: data_offsets must be two rising whole numbers; {_FETCH}")
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != expected:
        raise FormatError(f"{where}: {dtype} {shape} needs {expected} bytes, data_offsets give {offsets[1] - offsets[0]}; {_FETCH}")
    return Entry(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _sizes(value: Any) -> bool:
    """Whether a JSON value is a list of ints in [0, 2^48]; `type is` because JSON true must not pass as 1."""
    return type(value) is list and all(type(item) is int and 0 <= item <= MAX_SIZE for item in value)
