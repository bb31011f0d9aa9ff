"""Sources of every kind, and reading back what a conversion wrote, with nothing of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors

from tests.torch_fixtures import BITS, older, state, storage, tensor, torch_zip

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


CLASSES = {"F64": "DoubleStorage", "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
ARRANGEMENTS = ("plain", "transposed", "strided", "shared")


def torch_parts(entries: Mapping[str, Entry], arrangement: str = "plain") -> tuple[dict[str, bytes], dict[str, tuple[int, bytes]]]:
    """(pickle code by name, storages) of a state dict.

    plain: elements in order. transposed: in the opposite order of axes. strided: only every second element of the storage is used.
    shared: all tensors of a type lie in one storage, one behind the other.
    """
    parts, storages = {}, {}
    sizes = {kind: sum(math.prod(entry.shape) for entry in entries.values() if entry.dtype == kind) for kind in CLASSES}
    for i, (name, entry) in enumerate(entries.items()):
        values = np.frombuffer(entry.data, BITS[entry.dtype]).reshape(entry.shape)
        key, offset, strides = str(i), 0, [math.prod(entry.shape[axis + 1 :]) for axis in range(values.ndim)]
        if arrangement == "transposed":
            strides = [math.prod(entry.shape[:axis]) for axis in range(values.ndim)]
            values = values.T
        elif arrangement == "strided":
            strides = [2 * stride for stride in strides]
            values = np.stack([values.ravel(), ~values.ravel()], axis=1)
        elif arrangement == "shared":
            key = str(list(CLASSES).index(entry.dtype))
            held = storages.get(key, (0, b""))[1]
            offset, values = len(held) // values.itemsize, np.frombuffer(held + entry.data, BITS[entry.dtype])
        storages[key] = (values.size, values.tobytes())
        numel = sizes[entry.dtype] if arrangement == "shared" else values.size
        parts[name] = tensor(storage(key, numel, CLASSES[entry.dtype]), offset, entry.shape, strides)
    return parts, storages


def torch_file(code: bytes, storages: Mapping[str, tuple[int, bytes]], layout: str) -> bytes:
    """A file of torch.save in either layout, "zip" or "older"."""
    return older(code, storages) if layout == "older" else torch_zip(code, {key: data for key, (_, data) in storages.items()})


def as_torch(folder: Path, layout: str, tied: bool = False, arrangement: str = "plain") -> Path:
    """A checkpoint of make_checkpoint as one torch file in its own folder; `tied`: lm_head is wte in the file."""
    entries = stored(folder)
    if tied:
        entries.pop("lm_head.weight", None)  # a checkpoint whose config says so has none to begin with
    parts, storages = torch_parts(entries, arrangement)
    if tied:
        parts["lm_head.weight"] = parts["transformer.wte.weight"]
    (folder / "model.safetensors").rename(folder / "kept")
    (folder / "pytorch_model.bin").write_bytes(torch_file(state(parts), storages, layout))
    return folder
