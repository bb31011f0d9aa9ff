"""A checkpoint folder -> weights by name, as stored and mapped, nothing widened and nothing copied.

`model.safetensors` alone, or `model.safetensors.index.json` with its shards; where both exist the single file is taken,
as the transformers library does. Every header is checked against the config and the memory estimated before a byte of a
tensor is read. Values are not scanned: looking for NaN would read the whole model from disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from qwenaudio_np.config import ModelConfig
from qwenaudio_np.errors import FormatError, MismatchError, UnsafeError, UnsupportedError, shown
from qwenaudio_np.json_fields import read_json
from qwenaudio_np.memory import available_bytes, needed_bytes, require_memory
from qwenaudio_np.names import AUDIO_PREFIX, EMBEDDING, OUTPUT_HEAD, expected_tensors, is_ignored, optional_tensors
from qwenaudio_np.safetensors_file import Header, SafetensorsFile, Stored, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SUFFIX = ".safetensors"
MAX_INDEX_BYTES = 1 << 24
DEFAULT_POSITIONS = 2048  # prompt and answer together, for the memory estimate

FLOAT_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Weights(Mapping[str, np.ndarray]):
    """Tensors of one checkpoint by their full names, read-only: float32, float16, float64, or uint16 meaning bfloat16.

    With tied embeddings "lm_head.weight" is the array of "transformer.wte.weight".
    """

    def __init__(self, tensors: Mapping[str, Stored], tied: bool = False) -> None:
        self._arrays = {name: stored.array for name, stored in tensors.items()}
        self.nbytes = sum(array.nbytes for array in self._arrays.values())
        self.dtypes = Counter(FLOAT_NAMES[stored.dtype] for stored in tensors.values())  # type -> number of tensors
        if tied:
            self._arrays[OUTPUT_HEAD] = self._arrays[EMBEDDING]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def label(self) -> str:
        """The type of the weights for reports: its name if all agree, else "mixed"."""
        return next(iter(self.dtypes)) if len(self.dtypes) == 1 else "mixed"


@dataclass(frozen=True)
class FileSummary:
    """One weight file: its size and, by type, its number of tensors."""

    name: str
    nbytes: int
    dtypes: dict[str, int]


@dataclass(frozen=True)
class Summary:
    """What a checkpoint's headers tell without loading it. Parameters are numbers of elements, bytes those of the tensors."""

    files: tuple[FileSummary, ...]
    encoder_parameters: int
    decoder_parameters: int
    weight_bytes: int


def load_weights(
    folder: str | Path,
    config: ModelConfig,
    *,
    positions: int = DEFAULT_POSITIONS,
    dtype: DTypeLike = np.float32,
    force: bool = False,
) -> Weights:
    """Map the weights of a checkpoint folder after checking names, shapes, types and the memory for `positions` positions.

    `force` skips the memory check alone.
    Raises FormatError (a broken or missing file), UnsafeError (an index that points outside), MismatchError (missing,
    unexpected, misshapen or doubled tensors), UnsupportedError (a type that is not a float), ResourceError (memory).
    """
    shards = Shards(Path(folder))
    files = {name: SafetensorsFile(shards.folder / name) for name in shards.names}
    holder = shards.holders({name: file.header for name, file in files.items()})
    wanted = _require_tensors(holder, {name: file.header for name, file in files.items()}, config)
    if not force:
        nbytes = sum(files[holder[name]].header.tensors[name].nbytes for name in wanted)
        require_memory(needed_bytes(config, nbytes, positions, dtype), available_bytes())
    tensors = {name: files[holder[name]].tensor(name) for name in wanted}
    return Weights(tensors, tied=config.text.tie_word_embeddings)


def checkpoint_summary(folder: str | Path) -> Summary:
    """Sizes and types from the headers alone. Raises as load_weights does for files and index; the config is not consulted."""
    shards = Shards(Path(folder))
    headers = {name: read_header(shards.folder / name) for name in shards.names}
    entries = {name: headers[shard].tensors[name] for name, shard in shards.holders(headers).items() if not is_ignored(name)}
    encoder = sum(entry.parameters for name, entry in entries.items() if name.startswith(AUDIO_PREFIX))
    return Summary(
        files=tuple(_summarise(name, header) for name, header in headers.items()),
        encoder_parameters=encoder,
        decoder_parameters=sum(entry.parameters for entry in entries.values()) - encoder,
        weight_bytes=sum(entry.nbytes for entry in entries.values()),
    )


def _summarise(name: str, header: Header) -> FileSummary:
    counts = Counter(FLOAT_NAMES.get(entry.dtype, entry.dtype) for entry in header.tensors.values())
    return FileSummary(name, header.file_bytes, dict(counts))


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
        self.weight_map = _parse_index(read_json(folder / INDEX_FILE, MAX_INDEX_BYTES), folder / INDEX_FILE)
        self.names = sorted(set(self.weight_map.values()))
        missing = [name for name in self.names if not (folder / name).exists()]
        if missing:
            raise FormatError(f"{shown(folder)}: {_some(missing)} named in {INDEX_FILE} but not in the folder; fetch the missing shards")

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
                f"{shown(self.folder)}: {_some(unlisted)} in {shown(found[unlisted[0]])} but not in {INDEX_FILE}; "
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


def _parse_index(fields: dict[str, Any], path: Path) -> dict[str, str]:
    """The weight_map of an index, every file name in it a plain name inside the folder."""
    weight_map = fields.get("weight_map")
    if type(weight_map) is not dict or not weight_map:
        raise FormatError(f"{shown(path)}: weight_map is missing or empty, expected tensor names and their files; fetch the file again")
    for tensor, name in weight_map.items():
        if type(name) is not str:
            raise FormatError(f"{shown(path)}: the file of {shown(tensor)} is {shown(name)}, expected a name; fetch the file again")
        if not name or not name.isprintable() or name.startswith(".") or any(part in name for part in ("/", "\\", ":", "..")):
            raise UnsafeError(f"{shown(path)} points to {shown(name)}, expected a plain file name in the folder; do not trust this index")
        if not name.endswith(SUFFIX):
            raise FormatError(f"{shown(path)} points to {shown(name)}, expected a name that ends in {SUFFIX}; fetch the checkpoint again")
    return weight_map


def _require_tensors(holder: Mapping[str, str], headers: Mapping[str, Header], config: ModelConfig) -> list[str]:
    """The names the config asks for, once all are known to be there with the right shape and a float type, and no others."""
    expected, optional = expected_tensors(config), optional_tensors(config)
    missing = [name for name in expected if name not in holder]
    if missing:
        raise MismatchError(f"{_some(missing)} missing from {_some(sorted(headers))}; does config.json belong to this checkpoint?")
    unexpected = [name for name in holder if name not in expected and name not in optional and not is_ignored(name)]
    if unexpected:
        raise MismatchError(
            f"{_some(unexpected)} in {shown(holder[unexpected[0]])} not expected; does config.json belong to this checkpoint?"
        )
    for name, shape in (expected | optional).items():
        if name not in holder:
            continue
        entry = headers[holder[name]].tensors[name]
        if entry.shape != shape:
            raise MismatchError(
                f"tensor {shown(name)} in {shown(holder[name])} is {list(entry.shape)}, config.json asks for {list(shape)}; "
                "do they belong together?"
            )
        if entry.dtype not in FLOAT_NAMES:
            raise UnsupportedError(
                f"tensor {shown(name)} in {shown(holder[name])} is {entry.dtype}, expected one of {', '.join(FLOAT_NAMES)}; "
                "quantised checkpoints of other programs are not read"
            )
    return list(expected)


def _some(names: Iterable[str]) -> str:
    """The first of many names, and how many more there are."""
    first, *more = names
    return shown(first) + (f" and {len(more)} more" if more else "")
