"""manifest.json: what a converted folder holds and where it came from, so that any later change of a byte is found.

    {"format": 1, "version": "0.1.0", "options": {...}, "sources": [{"role", "name", "bytes", "sha256"}],
     "files": {name: {"bytes", "sha256"}}, "tensors": {name: {"shape", "dtype", "sha256"}}, "dropped": [...], "fresh": [...]}

Sources are everything that was read: weight files (role "weights", or "audio" of a graft), their indexes ("index"), config and
vocabulary ("config"). It is written last: a folder that has one is whole. It holds no date and no path, so the same input gives the
same bytes. While a conversion runs, `progress.json` holds the same facts about the shards that are finished, for a run that resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qwenaudio_np.config import read_json
from qwenaudio_np.errors import FormatError, shown
from qwenaudio_np.shards import MANIFEST

from .progress import Advance
from .safetensors_writer import Pieces, TensorSpec, header_bytes, whole_file
from .source_file import open_source_file

PROGRESS = "progress.json"
MANIFEST_FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 24


@dataclass
class Finished:
    """Files that are written whole, and the tensors in them, with their hashes, as they stand in manifest.json.

    `odd`: how many values of a source's tensor are NaN or infinite, for those that have any.
    """

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)
    odd: dict[str, int] = field(default_factory=dict)

    def save(self, folder: Path, job: dict[str, Any]) -> None:
        """Write progress.json for `job`, which says what is being made from what."""
        write_json(folder / PROGRESS, {"job": job, **asdict(self)})


def load_progress(folder: Path, job: dict[str, Any]) -> Finished:
    """What an earlier run of the same `job` finished; nothing, if it was another job or its notes are damaged."""
    try:
        fields = read_json(folder / PROGRESS, MAX_MANIFEST_BYTES)
        files, tensors, odd = fields["files"], fields["tensors"], fields["odd"]
        same = fields["job"] == job and all(type(entry) is dict for part in (files, tensors) for entry in part.values())
        same &= all(type(count) is int for count in odd.values())
    except (FormatError, KeyError, AttributeError):
        return Finished()
    return Finished(files, tensors, odd) if same else Finished()


def load_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, None if it has none. Raises FormatError for a damaged or unknown one."""
    if not (folder / MANIFEST).exists():
        return None
    fields = read_json(folder / MANIFEST, MAX_MANIFEST_BYTES)
    if fields.get("format") != MANIFEST_FORMAT:
        raise FormatError(f"{shown(folder / MANIFEST)} has the format {shown(fields.get('format'))}, expected {MANIFEST_FORMAT}")
    for part in ("files", "tensors", "options"):
        if type(fields.get(part)) is not dict or (part != "options" and not all(type(entry) is dict for entry in fields[part].values())):
            raise FormatError(f"{shown(folder / MANIFEST)}: {part} is missing or of the wrong kind; convert the checkpoint again")
    return fields


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """One JSON file, whole or not at all. Raises ResourceError."""
    with whole_file(path) as stream:
        stream.write(json_bytes(fields))


def json_bytes(fields: dict[str, Any]) -> bytes:
    """JSON as it is written here: the fields in the order given, UTF-8. Half a character (of a file's name, say) stands as its escape."""
    return (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def file_entry(data: bytes) -> dict[str, Any]:
    """The manifest's entry of a small file."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def is_intact(path: Path, entry: dict[str, Any], advance: Advance = lambda count: None) -> bool:
    """Whether a file has the size and hash of its entry."""
    if not os.path.isfile(path) or path.stat().st_size != entry.get("bytes") or not entry["bytes"]:
        return False
    with open_source_file(path) as file:
        return file.sha256(advance=advance) == entry.get("sha256")


class ShardHash:
    """Hashes of a shard and its tensors, taken while they are written: `pieces` passes on what it is given."""

    def __init__(self, tensors: Sequence[TensorSpec], pieces: Pieces) -> None:
        head = header_bytes(tensors)
        self._file, self._size = hashlib.sha256(head), len(head)
        self._pieces = pieces
        self.tensors: dict[str, dict[str, Any]] = {}

    def pieces(self, spec: TensorSpec) -> Iterator[np.ndarray]:
        """The elements of a tensor; tensors must be asked for in the order of the shard."""
        digest = hashlib.sha256()
        with ThreadPoolExecutor(1) as other:  # both hashes of a piece at once: hashing is most of the work
            for piece in self._contiguous(self._pieces(spec)):
                waiting = other.submit(self._file.update, piece.data)
                digest.update(piece.data)
                waiting.result()
                self._size += piece.nbytes
                yield piece
        self.tensors[spec.name] = {"shape": list(spec.shape), "dtype": spec.dtype, "sha256": digest.hexdigest()}

    @staticmethod
    def _contiguous(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return (np.ascontiguousarray(piece) for piece in pieces if piece.size)

    @property
    def entry(self) -> dict[str, Any]:
        """The file's entry, once all tensors have passed."""
        return {"bytes": self._size, "sha256": self._file.hexdigest()}
