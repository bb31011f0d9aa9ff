"""Which files of a checkpoint folder hold the weights, and which of them holds which tensor.

`model.safetensors` alone, or `model.safetensors.index.json` with its shards; where both exist the single file is taken,
as the transformers library does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qwenaudio_np.errors import FormatError, MismatchError, UnsafeError, shown
from qwenaudio_np.json_fields import read_json
from qwenaudio_np.safetensors_file import Header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MANIFEST = "manifest.json"  # written by the converter, last
SUFFIX = ".safetensors"
MAX_INDEX_BYTES = 1 << 24
LONGEST_NAME = 255  # bytes; no file system that is much used has longer ones


class Shards:
    """Which files of a folder hold the weights. `weight_map` is the index's tensor -> file, None for a single file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weight_map: dict[str, str] | None = None
        self.names = [SINGLE_FILE]
        if (folder / SINGLE_FILE).exists():
            return
        if not (folder / INDEX_FILE).exists():
            raise FormatError(_no_weights(folder))
        self.weight_map = weight_map(read_json(folder / INDEX_FILE, MAX_INDEX_BYTES), folder / INDEX_FILE)
        self.names = sorted(set(self.weight_map.values()))
        missing = [name for name in self.names if not (folder / name).exists()]
        if missing:
            raise FormatError(f"{shown(folder)}: {some(missing)} named in {INDEX_FILE} but not in the folder; fetch the missing shards")

    def holders(self, headers: Mapping[str, Header]) -> dict[str, str]:
        """Tensor -> the file that holds it, from the files' own headers, which must agree with the index."""
        found: dict[str, str] = {}
        for shard, header in headers.items():
            for name in header.tensors:
                if name in found:
                    raise MismatchError(
                        f"{shown(self.folder)}: tensor {shown(name)} is in {shown(found[name])} and in {shown(shard)}, expected one place; "
                        "fetch the checkpoint again"
                    )
                found[name] = shard
        for name, shard in (self.weight_map or found).items():
            if found.get(name) != shard:
                raise MismatchError(
                    f"{shown(self.folder)}: {INDEX_FILE} places tensor {shown(name)} in {shown(shard)}, which does not hold it; "
                    "fetch the checkpoint again"
                )
        unlisted = [name for name in found if self.weight_map is not None and name not in self.weight_map]
        if unlisted:
            raise MismatchError(
                f"{shown(self.folder)}: {some(unlisted)} in {shown(found[unlisted[0]])} but not in {INDEX_FILE}; "
                "fetch the checkpoint again"
            )
        return found


def _no_weights(folder: Path) -> str:
    """What to say when there is neither a single file nor an index."""
    if not folder.is_dir():
        return f"{shown(folder)} is not a folder, expected a checkpoint folder with config.json and {SINGLE_FILE}"
    if any(folder.glob("pytorch_model*.bin")):
        return f"{shown(folder)} holds only pytorch_model*.bin files, which are not read here; convert them to safetensors first"
    return f"{shown(folder)} holds neither {SINGLE_FILE} nor {INDEX_FILE}; is it a checkpoint folder, and was it fetched whole?"


def weight_map(fields: dict[str, Any], path: Path, suffix: str = SUFFIX) -> dict[str, str]:
    """Tensor -> file of an index: every file a plain name inside the index's own folder, with this suffix.

    Raises FormatError or, for a name that leads out of the folder, UnsafeError.
    """
    files = fields.get("weight_map")
    if type(files) is not dict or not files:
        raise FormatError(f"{shown(path)}: weight_map is missing or empty, expected tensor names and their files; fetch the file again")
    for tensor, name in files.items():
        if type(name) is not str:
            raise FormatError(f"{shown(path)}: the file of {shown(tensor)} is {shown(name)}, expected a name; fetch the file again")
        if not name or not name.isprintable() or name.startswith(".") or any(part in name for part in ("/", "\\", ":", "..")):
            raise UnsafeError(f"{shown(path)} points to {shown(name)}, expected a plain file name in the folder; do not trust this index")
        if not name.endswith(suffix) or len(os.fsencode(name)) > LONGEST_NAME:
            raise FormatError(f"{shown(path)} points to {shown(name)}, expected a name that ends in {suffix}; fetch the checkpoint again")
    return files


def some(names: Iterable[str]) -> str:
    """The first of many names, and how many more there are."""
    first, *more = names
    return shown(first) + (f" and {len(more)} more" if more else "")
