"""Reading back what a conversion wrote, with nothing of the package."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import safetensors

SMALL = 300_000  # bytes to a shard: golden checkpoints become several


class Entry(NamedTuple):
    dtype: str
    shape: list[int]
    data: bytes


def stored(folder: Path) -> dict[str, Entry]:
    """Every tensor of a folder, by the safetensors library."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in safetensors.deserialize(path.read_bytes()):
            tensors[name] = Entry(entry["dtype"], entry["shape"], bytes(entry["data"]))
    return tensors


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def left_over(folder: Path) -> list[str]:
    """Names beside the destination that a conversion may leave behind."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
