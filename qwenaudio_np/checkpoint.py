"""A checkpoint folder -> weights by name, as stored and mapped, nothing widened and nothing copied unless another type is asked for.

Every header is checked against the config and the memory estimated before a byte of a tensor is read.
Values are not scanned: looking for NaN would read the whole model from disk.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from qwenaudio_np.cache import usually_kept
from qwenaudio_np.config import ModelConfig
from qwenaudio_np.errors import MismatchError, UnsupportedError, UsageError, shown
from qwenaudio_np.memory import available_bytes, needed_bytes, require_memory
from qwenaudio_np.names import AUDIO_PREFIX, EMBEDDING, OUTPUT_HEAD, Shape, expected_tensors, is_ignored, optional_tensors
from qwenaudio_np.ops import Weight
from qwenaudio_np.quantised import Quantised, quantise
from qwenaudio_np.recoding import Progress, Quantise, recoded
from qwenaudio_np.safetensors_file import Entry, Header, SafetensorsFile, read_header
from qwenaudio_np.shards import INDEX_FILE, MAX_INDEX_BYTES, SINGLE_FILE, Shards, some
from qwenaudio_np.weight_plan import FLOAT_NAMES, WEIGHTS, Piece, bits_of, can_be_quantised, pieces, planned_bytes, stored_bits

__all__ = ["FLOAT_NAMES", "INDEX_FILE", "MAX_INDEX_BYTES", "SINGLE_FILE", "Shards", "Weights", "checkpoint_summary", "load_weights"]

DEFAULT_POSITIONS = 2048  # prompt and answer together, for the memory estimate


class Weights(Mapping[str, Weight]):
    """Tensors of one checkpoint by their full names, read-only: float32, float16, float64, uint16 meaning bfloat16, or Quantised.

    With tied embeddings "lm_head.weight" is the array of "transformer.wte.weight".
    """

    def __init__(self, arrays: Mapping[str, Weight], tied: bool = False) -> None:
        self._arrays = dict(arrays)
        self.nbytes = sum(array.nbytes for array in arrays.values())
        self.dtypes = Counter(_type_name(array) for array in arrays.values())  # type -> number of tensors
        if tied:
            self._arrays[OUTPUT_HEAD] = self._arrays[EMBEDDING]

    def __getitem__(self, name: str) -> Weight:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def label(self) -> str:
        """The type of the weights for reports: the coarsest if any is quantised, else the name if all agree, else "mixed"."""
        for name in ("int4", "int8"):
            if name in self.dtypes:
                return name
        return next(iter(self.dtypes)) if len(self.dtypes) == 1 else "mixed"

    @property
    def quantised(self) -> bool:
        """Whether some are in 8 or 4 bits."""
        return any(isinstance(weight, Quantised) for weight in self._arrays.values())


def mapped_bytes(weights: Mapping[str, Weight]) -> int:
    """Bytes of those that lie in mapped files; a weight with two names counts once."""
    return sum(weight.nbytes for weight in {id(weight): weight for weight in weights.values()}.values() if _is_mapped(weight))


def _is_mapped(weight: Weight) -> bool:
    """Whether a weight's numbers (a quantised one's codes) lie in a file that is mapped, not in memory of our own."""
    array: Any = weight.codes if isinstance(weight, Quantised) else weight
    while isinstance(array, np.ndarray):
        if array.base is None:
            return False
        array = array.base
    return True


def _type_name(weight: Weight) -> str:
    if isinstance(weight, Quantised):
        return f"int{weight.bits}"
    return "bfloat16" if weight.dtype == np.uint16 else str(weight.dtype)


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
    quantised: bool  # whether some weights are in 8 or 4 bits


def load_weights(
    folder: str | Path,
    config: ModelConfig,
    *,
    positions: int = DEFAULT_POSITIONS,
    dtype: DTypeLike = np.float32,
    kv: DTypeLike | None = None,
    force: bool = False,
    weights: str | None = None,
    progress: Progress | None = None,
    quantise: Quantise = quantise,
) -> Weights:
    """Map the weights of a checkpoint folder after checking names, shapes, types and the memory for `positions` positions, computed
    in `dtype`, keys and values kept as `kv` (None: as `usually_kept`).

    `force` skips the memory check alone. `weights` is the type they shall have, one of WEIGHTS; None: as stored.
    `quantise` does that, `progress` hears of it.
    Raises FormatError (a broken or missing file), UnsafeError (an index that points outside), MismatchError (missing,
    unexpected, misshapen or doubled tensors), UnsupportedError (a type that is not a float), ResourceError (memory),
    UsageError (`weights` is unknown, or these are quantised otherwise already).
    """
    if weights is not None and weights not in WEIGHTS:
        raise UsageError(f"unknown type of weights {shown(weights)}, expected one of: {', '.join(WEIGHTS)}")
    room = available_bytes()  # before the files are mapped: a limit on address space (ulimit -v) counts those too
    shards = Shards(Path(folder))
    files = {name: SafetensorsFile(shards.folder / name) for name in shards.names}
    holder = shards.holders({name: file.header for name, file in files.items()})
    wanted = _require_tensors(holder, {name: file.header for name, file in files.items()}, config)
    if not force:
        entries = {name: files[holder[name]].header.tensors[name] for name in wanted}
        nbytes = sum(planned_bytes(name, entry.shape, entry.nbytes, weights) for name, entry in entries.items())
        quantised = any(bits_of(name, weights or "") for name in wanted) or any(name.endswith(".codes") for name in wanted)
        kept = usually_kept(dtype, quantised) if kv is None else kv
        require_memory(needed_bytes(config, nbytes, positions, dtype, kept), room)
    arrays = _assembled({name: files[holder[name]].tensor(name).array for name in wanted}, config)
    stored = Weights(arrays, tied=config.text.tie_word_embeddings)
    if weights in (None, stored.label):
        return stored
    floats = {name: array for name, array in arrays.items() if not isinstance(array, Quantised)}
    if len(floats) < len(arrays):
        raise UsageError(f"{shown(folder)} is {stored.label} already; load it as it is, or make {weights} from the original checkpoint")
    return Weights(recoded(floats, str(weights), quantise, progress), tied=config.text.tie_word_embeddings)


def _assembled(tensors: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, Weight]:
    """Tensors of the files -> those of the model: codes, scales and offsets become one record."""
    weights: dict[str, Weight] = {}
    for name, shape in expected_tensors(config).items():
        if name in tensors:
            weights[name] = tensors[name]
        else:
            parts = (tensors[f"{name}.codes"], tensors[f"{name}.scales"], tensors.get(f"{name}.offsets"))
            weights[name] = Quantised(stored_bits(name, tensors), (shape[0], shape[1]), *parts)
    return weights


def checkpoint_summary(folder: str | Path, config: ModelConfig) -> Summary:
    """Sizes and types from the headers alone. Raises as load_weights does for files and index.

    How many weights a quantised tensor stands for, without those that fill it up to whole blocks and groups, the config says:
    MismatchError if it knows no such tensor. Nothing else is compared with it.
    """
    headers, entries = _headers(Path(folder))
    shapes = expected_tensors(config) | optional_tensors(config)
    counts = {name: _parameters(name, entry, shapes) for name, entry in entries.items()}
    encoder = sum(count for name, count in counts.items() if name.startswith(AUDIO_PREFIX))
    return Summary(
        files=tuple(_summarise(name, header) for name, header in headers.items()),
        encoder_parameters=encoder,
        decoder_parameters=sum(counts.values()) - encoder,
        weight_bytes=sum(entry.nbytes for entry in entries.values()),
        quantised=any(name.endswith(".codes") for name in entries),
    )


def checkpoint_files(folder: str | Path) -> tuple[FileSummary, ...]:
    """The weight files of a checkpoint folder of any kind, its config left aside. Raises as load_weights does for files and index."""
    headers, _ = _headers(Path(folder))
    return tuple(_summarise(name, header) for name, header in headers.items())


def _headers(folder: Path) -> tuple[dict[str, Header], dict[str, Entry]]:
    """File -> its header, and tensor -> its entry in the one file that holds it."""
    shards = Shards(folder)
    headers = {name: read_header(shards.folder / name) for name in shards.names}
    return headers, {name: headers[shard].tensors[name] for name, shard in shards.holders(headers).items() if not is_ignored(name)}


def _parameters(name: str, entry: Entry, shapes: Mapping[str, Shape]) -> int:
    """Weights that a stored tensor stands for: codes for those of the whole, scales and offsets for none."""
    whole, _, ending = name.rpartition(".")
    if not can_be_quantised(whole):
        return entry.parameters
    if whole not in shapes:
        raise MismatchError(f"tensor {shown(name)} is not of this config.json; does it belong to this checkpoint?")
    return math.prod(shapes[whole]) if ending == "codes" else 0


def _summarise(name: str, header: Header) -> FileSummary:
    counts = Counter(FLOAT_NAMES.get(entry.dtype, entry.dtype) for entry in header.tensors.values())
    return FileSummary(name, header.file_bytes, dict(counts))


def _require_tensors(holder: Mapping[str, str], headers: Mapping[str, Header], config: ModelConfig) -> list[str]:
    """The names the config asks for, once all are known to be there with the right shape and a float type, and no others."""
    expected, optional = pieces(expected_tensors(config), holder), pieces(optional_tensors(config), holder)
    missing = [name for name in expected if name not in holder]
    if missing:
        raise MismatchError(f"{some(missing)} missing from {some(sorted(headers))}; does config.json belong to this checkpoint?")
    unexpected = [name for name in holder if name not in expected and name not in optional and not is_ignored(name)]
    if unexpected:
        raise MismatchError(
            f"{some(unexpected)} in {shown(holder[unexpected[0]])} not expected; does config.json belong to this checkpoint?"
        )
    for name, piece in (expected | optional).items():
        if name in holder:
            _require_piece(name, piece, holder[name], headers[holder[name]].tensors[name])
    return list(expected)


def _require_piece(name: str, piece: Piece, file: str, entry: Entry) -> None:
    if entry.shape != piece.shape:
        raise MismatchError(
            f"tensor {shown(name)} in {shown(file)} is {list(entry.shape)}, config.json asks for {list(piece.shape)}; "
            "do they belong together?"
        )
    if entry.dtype not in piece.dtypes:
        raise UnsupportedError(
            f"tensor {shown(name)} in {shown(file)} is {entry.dtype}, expected one of {', '.join(piece.dtypes)}; "
            "quantised checkpoints of other programs are not read"
        )
