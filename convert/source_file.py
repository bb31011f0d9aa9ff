"""One file that tensors are read from: opened once, read in pieces into own buffers, never mapped.

Every read is counted, so a file that is cut short meanwhile is an error and not the end of the process, as it would be
with a memory map. Memory does not grow with the tensor, except for one that is stored transposed: that one is held whole, as stored.
"""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from qwenaudio_np.errors import FormatError, ResourceError, UnsupportedError, shown
from qwenaudio_np.files import open_regular, reason, refuse_impostor
from qwenaudio_np.safetensors_file import DTYPES, Header, read_open_header

from .progress import Advance

PIECE_BYTES = 8 << 20
WIDE_BYTES = 256 << 20  # most bytes that one row of a widely strided tensor may span
SPARE_BYTES = 64 << 20  # may be read of a strided tensor beyond four times what it spans
HEAD_BYTES = 512  # enough for every signature, that of a tar archive at byte 257 included



@dataclass(frozen=True)
class Layout:
    """Where a tensor lies in a file: its first element at byte `begin`, then by strides, counted in elements."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    begin: int


@dataclass(frozen=True)
class Region:
    """Bytes begin..end of a file whose CRC-32 is known."""

    name: str
    begin: int
    end: int
    crc: int


class SourceFile:
    """A regular, open file. `head` holds its first bytes."""

    def __init__(self, path: Path, stream: IO[bytes], size: int) -> None:
        self.path, self.size, self._stream = path, size, stream
        self._state = self._stat()
        self.head = self.read(0, min(size, HEAD_BYTES))
        refuse_impostor(path, self.head)

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of what is open, whatever its name leads to by now."""
        status = os.fstat(self._stream.fileno())
        return status.st_dev, status.st_ino

    def read(self, begin: int, count: int) -> bytes:
        """`count` bytes from byte `begin`. Raises FormatError if the file has become shorter, ResourceError if it cannot be read."""
        buffer = bytearray(count)
        self.read_into(memoryview(buffer), begin)
        return bytes(buffer)

    def read_into(self, view: memoryview, begin: int) -> None:
        """Fill `view` from byte `begin` on. Raises as read does."""
        done = 0
        try:
            self._stream.seek(begin)
            while done < len(view):
                count = self._stream.readinto(view[done:])  # type: ignore[attr-defined]
                if not count:
                    raise FormatError(f"{shown(self.path)} became shorter while it was read; fetch it again")
                done += count
        except OSError as failure:
            # No fault of the file's contents: what was made of it so far stays good.
            raise ResourceError(f"cannot read {shown(self.path)}: {reason(failure)}") from None

    def safetensors_header(self) -> Header:
        """The checked header of what is open, whatever its name leads to by now. Raises as read_header does."""
        return read_open_header(self._stream.fileno(), self.size, self.path)

    def require_unchanged(self) -> None:
        """Raise FormatError if the file was written to since it was opened."""
        if self._stat() != self._state:
            raise FormatError(f"{shown(self.path)} was changed while it was read; convert again when nothing writes to it")

    def sha256(self, regions: Sequence[Region] = (), advance: Advance = lambda count: None) -> str:
        """The hash of the whole file, in hexadecimal. `regions` must not overlap.

        Raises FormatError if a region's bytes do not have its CRC-32: the file was damaged.
        """
        digest, buffer = hashlib.sha256(), memoryview(bytearray(PIECE_BYTES))
        waiting = sorted(regions, key=lambda region: region.begin)
        for begin, end, region in _stretches(waiting, self.size):
            crc = 0
            for at in range(begin, end, PIECE_BYTES):
                piece = buffer[: min(PIECE_BYTES, end - at)]
                self.read_into(piece, at)
                digest.update(piece)
                crc = zlib.crc32(piece, crc) if region else 0
                advance(len(piece))
            if region and crc != region.crc:
                raise FormatError(f"{shown(self.path)}: the checksum of {shown(region.name)} is wrong: the file is damaged; fetch it again")
        return digest.hexdigest()

    def rows(self, layout: Layout, name: str = "") -> Iterator[np.ndarray]:
        """A tensor in order, as blocks of whole rows [some, *shape[1:]] of about PIECE_BYTES; a number without axes as one row.

        A tensor that is stored transposed is read once and held for the length of the iteration; its blocks are copies.
        Raises UnsupportedError, with the tensor's `name`, for a strided tensor that takes too much memory or reading.
        """
        shape, strides = (layout.shape, layout.strides) if layout.shape else ((1,), (1,))
        if 0 in shape:
            return
        itemsize = DTYPES[layout.dtype].itemsize
        rows = min(shape[0], max(1, PIECE_BYTES // (math.prod(shape[1:]) * itemsize)))
        if not is_contiguous(shape, strides) and _span(shape, strides) <= 2 * math.prod(shape):
            whole = self._view(layout, shape, strides, layout.begin)
            for first in range(0, shape[0], rows):
                yield np.array(whole[first : first + rows], order="C")
            return
        rows = self._rows_at_once(shape, strides, itemsize, rows, name)
        for first in range(0, shape[0], rows):
            block = (min(rows, shape[0] - first), *shape[1:])
            yield np.ascontiguousarray(self._view(layout, block, strides, layout.begin + first * strides[0] * itemsize))

    def _rows_at_once(self, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, rows: int, name: str) -> int:
        """How many rows to read together, at most `rows`: fewer where they lie far apart."""
        while rows > 1 and _span((rows, *shape[1:]), strides) * itemsize > WIDE_BYTES:
            rows //= 2
        block = _span((rows, *shape[1:]), strides) * itemsize
        # Rows that each reach across most of the tensor would be read again and again: a file of 1 GB as 1 TB.
        total, most = -(-shape[0] // rows) * block, 4 * _span(shape, strides) * itemsize + SPARE_BYTES
        if block > WIDE_BYTES or total > most:
            raise UnsupportedError(
                f"{shown(self.path)}: tensor {shown(name)} {list(shape)} with strides {list(strides)} lies too scattered to be read: "
                f"{total} bytes in pieces of {block}, expected at most {most} in pieces of {WIDE_BYTES}; save it contiguous"
            )
        return rows

    def _view(self, layout: Layout, shape: tuple[int, ...], strides: tuple[int, ...], begin: int) -> np.ndarray:
        flat = np.empty(_span(shape, strides), DTYPES[layout.dtype])
        self.read_into(flat.view(np.uint8).data, begin)
        return np.lib.stride_tricks.as_strided(flat, shape, [stride * flat.itemsize for stride in strides], writeable=False)

    def _stat(self) -> tuple[int, int]:
        status = os.fstat(self._stream.fileno())
        return status.st_size, status.st_mtime_ns


@contextmanager
def open_source_file(path: Path) -> Iterator[SourceFile]:
    """The file, open for the length of the block. Raises FormatError for what is no regular file, or a pointer or error page."""
    with open_regular(path) as (descriptor, size), os.fdopen(descriptor, "rb", buffering=0, closefd=False) as stream:
        yield SourceFile(path, stream, size)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor whose elements stand in order, last axis fastest."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether elements stand in order without gaps; the stride of an axis of length 1 has no meaning."""
    wanted = contiguous_strides(shape)
    return all(size == 1 or stride == expected for size, stride, expected in zip(shape, strides, wanted, strict=True))


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last one of a view, gaps included."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _stretches(regions: Sequence[Region], size: int) -> Iterator[tuple[int, int, Region | None]]:
    """The file from 0 to size as (begin, end, region or None)."""
    at = 0
    for region in regions:
        yield at, region.begin, None
        yield region.begin, region.end, region
        at = region.end
    yield at, size, None
