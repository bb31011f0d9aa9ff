"""Where weights come from: a folder of the transformers library, or one file -> tensors by their upstream names.

    safetensors   model.safetensors, or model.safetensors.index.json with its shards, or one .safetensors file
    pytorch       pytorch_model.bin, or pytorch_model.bin.index.json with its shards, or one .bin, .pt or .pth file
    whisper       a .pt file of OpenAI's Whisper: sizes and weights

Everything is opened and every header checked before a tensor is read. A folder with both kinds is read as safetensors, and a
broken safetensors file is an error: it never leads to opening a pickle instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qwenaudio_np.checkpoint import INDEX_FILE, MAX_INDEX_BYTES, SINGLE_FILE
from qwenaudio_np.errors import FormatError, MismatchError, UsageError, shown
from qwenaudio_np.files import read_text
from qwenaudio_np.json_fields import parse_json
from qwenaudio_np.shards import weight_map

from .source_file import Layout, Region, SourceFile, contiguous_strides, open_source_file
from .torch_files import TorchFile, read_torch_file

SAFETENSORS, PYTORCH, WHISPER = "safetensors", "pytorch", "whisper"
KINDS = (SAFETENSORS, PYTORCH, WHISPER)
PYTORCH_FILE, PYTORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
PYTORCH_SUFFIXES = (".bin", ".pt", ".pth")


@dataclass(frozen=True)
class SourceTensor:
    """A tensor: `rows()` gives its blocks of whole rows, each time anew. `place` is equal for tensors that share their bytes."""

    dtype: str
    shape: tuple[int, ...]
    rows: Callable[[], Iterator[np.ndarray]]
    place: tuple[object, ...] | None = None


def same_place(one: SourceTensor | None, other: SourceTensor | None) -> bool:
    """Whether two tensors are there and share their bytes."""
    return one is not None and other is not None and one.place is not None and one.place == other.place


@dataclass(frozen=True)
class WeightSource:
    """Open files and the tensors in them.

    `regions` are the checksums that each file states about itself, `dims` Whisper's sizes, `index` name and bytes of the index, if any.
    """

    kind: str
    files: tuple[SourceFile, ...]
    regions: tuple[tuple[Region, ...], ...]
    tensors: dict[str, SourceTensor]
    dims: dict[str, int] | None = None
    index: Mapping[str, bytes] = field(default_factory=dict)

    def require_unchanged(self) -> None:
        """Raise FormatError if a file was written to since it was opened."""
        for file in self.files:
            file.require_unchanged()


@contextmanager
def open_weights(path: Path, kind: str | None = None) -> Iterator[WeightSource]:
    """The weights at `path`, open for the length of the block; `kind` is one of KINDS, by default what is found.

    Raises UsageError (unknown kind), FormatError, UnsafeError, UnsupportedError, MismatchError.
    """
    if kind not in (None, *KINDS):
        raise UsageError(f"unknown kind of source {shown(kind)}, expected one of: {', '.join(KINDS)}")
    with ExitStack() as stack:
        found, paths, index = _files(path, kind)
        files = tuple(stack.enter_context(open_source_file(file)) for file in paths)
        if found == SAFETENSORS:
            contents = [TorchFile(_safetensors_layouts(file), [], None) for file in files]
        else:
            contents = [read_torch_file(file) for file in files]
        dims = contents[0].dims
        if kind is not None and (kind == WHISPER) != (dims is not None):
            no_dims = "states no sizes (dims), expected a Whisper checkpoint of OpenAI"
            what = no_dims if dims is None else f"is a Whisper checkpoint, expected {kind}"
            raise MismatchError(f"{shown(path)} {what}")
        tensors = _merged(files, contents, index.weight_map if index else None, path)
        regions = tuple(tuple(content.regions) for content in contents)
        yield WeightSource(WHISPER if dims else found, files, regions, tensors, dims, {index.name: index.data} if index else {})


class _Index(NamedTuple):
    """An index as it was read, and its tensor -> file."""

    name: str
    data: bytes
    weight_map: dict[str, str]


def _files(path: Path, kind: str | None) -> tuple[str, list[Path], _Index | None]:
    """(SAFETENSORS or PYTORCH, files, their index)."""
    if not path.exists():
        raise UsageError(f"{shown(path)}: no such file or folder, expected a checkpoint")
    if path.is_dir():
        return _folder_files(path, kind)
    if path.suffix == ".safetensors":
        found = SAFETENSORS
    elif path.suffix in PYTORCH_SUFFIXES:
        found = PYTORCH
    else:
        raise UsageError(f"{shown(path)} is neither a folder nor a .safetensors, .bin, .pt or .pth file, expected one of these")
    if kind is not None and (kind == SAFETENSORS) != (found == SAFETENSORS):
        raise UsageError(f"{shown(path)} is a {path.suffix} file, expected one of {kind}")
    return found, [path], None


def _folder_files(folder: Path, kind: str | None) -> tuple[str, list[Path], _Index | None]:
    """A single file is preferred to an index, safetensors to pickles, as the transformers library does."""
    if kind == WHISPER:
        raise UsageError(f"{shown(folder)} is a folder, expected the .pt file of a Whisper checkpoint of OpenAI; name the file itself")
    layouts = ((SAFETENSORS, SINGLE_FILE, INDEX_FILE), (PYTORCH, PYTORCH_FILE, PYTORCH_INDEX))
    for found, single, index in [layout for layout in layouts if kind in (None, layout[0])]:
        if (folder / single).exists():
            return found, [folder / single], None
        if (folder / index).exists():
            text = read_text(folder / index, MAX_INDEX_BYTES)
            file_of = weight_map(parse_json(text, str(folder / index)), folder / index, Path(single).suffix)
            return found, [folder / name for name in sorted(set(file_of.values()))], _Index(index, text.encode(), file_of)
    wanted = " or ".join(name for layout in layouts if kind in (None, layout[0]) for name in layout[1:])
    raise FormatError(f"{shown(folder)} holds no {wanted}; is it a checkpoint folder, and was it fetched whole?")


def _safetensors_layouts(file: SourceFile) -> dict[str, Layout]:
    header = file.safetensors_header()
    return {name: Layout(e.dtype, e.shape, contiguous_strides(e.shape), e.begin) for name, e in header.tensors.items()}


def _merged(
    files: tuple[SourceFile, ...], contents: list[TorchFile], index: Mapping[str, str] | None, path: Path
) -> dict[str, SourceTensor]:
    """Tensors of all files; each in one file, and that the one the index names."""
    tensors: dict[str, SourceTensor] = {}
    for file, content in zip(files, contents, strict=True):
        for name, layout in content.tensors.items():
            if name in tensors:
                raise MismatchError(f"{shown(path)}: tensor {shown(name)} is in two files, expected one; fetch the checkpoint again")
            if index is not None and index.get(name) != file.path.name:
                raise MismatchError(
                    f"{shown(path)}: tensor {shown(name)} is in {shown(file.path.name)}, the index names {shown(index.get(name))}; "
                    "fetch the checkpoint again"
                )
            tensors[name] = SourceTensor(layout.dtype, layout.shape, partial(file.rows, layout, name), (file.path, layout))
    missing = [name for name in index or () if name not in tensors]
    if missing:
        raise MismatchError(f"{shown(path)}: the index names {shown(missing[0])}, which no file holds; fetch the checkpoint again")
    return tensors
