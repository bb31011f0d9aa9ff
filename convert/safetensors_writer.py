"""Writing safetensors files of any size piece by piece, so that a file appears whole or not at all.

The header comes first in the format, so names, types and shapes are given before any data. The JSON is padded with
spaces until the data begins at a multiple of 64 bytes: every tensor whose size keeps that up can be used in place.
Same input, same bytes: nothing depends on time, dictionary order of the machine, or the size of the pieces.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from qwenaudio_np.checkpoint import INDEX_FILE
from qwenaudio_np.errors import MismatchError, ResourceError, shown
from qwenaudio_np.safetensors_file import DTYPES

from .progress import Advance

ALIGNMENT = 64  # bytes; a cache line, and more than any element needs

Pieces = Callable[["TensorSpec"], Iterable[np.ndarray]]  # a tensor's elements in order, in arrays of any size


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written. `dtype` is the format's name: "F32", "F16", "BF16", ..."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Shard:
    """One file of a plan and its tensors in order."""

    name: str
    tensors: tuple[TensorSpec, ...]


def plan_shards(tensors: Iterable[TensorSpec], max_bytes: int) -> list[Shard]:
    """Tensors in the order given, at most `max_bytes` of data to a file; a tensor larger than that has a file to itself."""
    groups: list[list[TensorSpec]] = []
    room = 0
    for tensor in tensors:
        if not groups or tensor.nbytes > room:
            groups.append([])
            room = max_bytes
        groups[-1].append(tensor)
        room -= tensor.nbytes
    return [Shard(f"model-{i:05d}-of-{len(groups):05d}.safetensors", tuple(group)) for i, group in enumerate(groups, 1)]


def write_shards(folder: Path, shards: Sequence[Shard], pieces: Pieces, advance: Advance = lambda count: None) -> None:
    """Write every shard, and last the index that names them. Raises as write_safetensors does."""
    for shard in shards:
        write_safetensors(folder / shard.name, shard.tensors, pieces, advance)
    with whole_file(folder / INDEX_FILE) as stream:
        stream.write(index_bytes(shards))


def index_bytes(shards: Sequence[Shard]) -> bytes:
    """The index: which shard holds each tensor, as transformers writes it."""
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for shard in shards for tensor in shard.tensors)},
        "weight_map": {tensor.name: shard.name for shard in shards for tensor in shard.tensors},
    }
    return json.dumps(index, indent=1).encode() + b"\n"


def write_safetensors(path: Path, tensors: Sequence[TensorSpec], pieces: Pieces, advance: Advance = lambda count: None) -> None:
    """Write one file; `pieces(tensor)` is called for each tensor in turn.

    Raises ResourceError where the disk refuses, MismatchError where the pieces do not add up to the tensor.
    """
    with whole_file(path) as stream:
        stream.write(header_bytes(tensors))
        for tensor in tensors:
            written = 0
            for piece in pieces(tensor):
                stream.write(np.ascontiguousarray(piece).data)
                written += piece.nbytes
                advance(piece.nbytes)
            if written != tensor.nbytes:
                raise MismatchError(f"tensor {shown(tensor.name)} for {shown(path)} came as {written} bytes, expected {tensor.nbytes}")


def header_bytes(tensors: Sequence[TensorSpec]) -> bytes:
    """Length and JSON header for tensors that follow in this order. Raises MismatchError for a repeated name."""
    fields: dict[str, object] = {"__metadata__": {"format": "pt"}}  # "pt" is what the transformers library asks for
    position = 0
    for tensor in tensors:
        if tensor.name in fields:
            raise MismatchError(f"tensor {shown(tensor.name)} is given twice, expected each name once")
        end = position + tensor.nbytes
        fields[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose file appears at `path`, on disk, when the block ends well, and not at all otherwise.

    Raises ResourceError with the system's reason if anything cannot be written.
    """
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # a rename may reach the disk before the data does
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as failure:
        raise ResourceError(f"cannot write {shown(path)}: {(failure.strerror or 'unknown error').lower()}") from None
    finally:
        with suppress(OSError):  # gone after the rename
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; systems that cannot open folders (Windows) do so by themselves."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
