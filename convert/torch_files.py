"""A file of torch.save, in the zip format or the older one -> where each tensor of its state dict lies.

The older format is five pickles in a row (a magic number, a protocol number, facts about the machine, the state dict, the list
of storage keys), then each storage: a count of elements, 8 bytes, and the elements. All five go through the same restricted reader.

Source: torch/serialization.py of PyTorch, _legacy_save and _save.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from qwenaudio_np.config import MAX_LAYERS
from qwenaudio_np.errors import FormatError, MismatchError, UnsupportedError, shown
from qwenaudio_np.safetensors_file import DTYPES

from .source_file import Layout, Region, SourceFile
from .state_objects import Storage, TensorView, tensor_names
from .state_pickle import MAX_PICKLE_BYTES, read_pickle
from .torch_zip import MAGIC, pickle_bytes, read_records

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
AUDIO_DIMS = ("n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer")
DIMS = (*AUDIO_DIMS, "n_vocab", "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer")
MAX_DIM = 1_000_000

_OTHERS = (
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"GGUF", "a GGUF file; expected torch.save of a state dict"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89PNG", "a picture; fetch the file again"),
    (b"PK", "a zip archive without records, or one part of several; fetch it again"),
)


class TorchFile(NamedTuple):
    """What a file holds. `dims` are the sizes that a Whisper checkpoint states, None for a plain state dict."""

    tensors: dict[str, Layout]
    regions: list[Region]  # checksums of the older format: none
    dims: dict[str, int] | None


def read_torch_file(file: SourceFile) -> TorchFile:
    """Tensors of a zip or older torch.save file by name.

    Raises UnsafeError (a pickle that asks for anything else than tensors), FormatError, UnsupportedError, MismatchError.
    """
    if file.head.startswith(MAGIC):
        regions = read_records(file)
        value, end = read_pickle(data := pickle_bytes(file, regions), shown(file.path))
        _require_end(end, len(data), file)
        views, dims = _state_dict(value, shown(file.path))
        begins = _zip_storages(views, regions, file)
        return TorchFile(_layouts(views, begins), list(regions.values()), dims)
    if file.head[:1] == b"\x80":
        views, dims, begins = _read_legacy(file)
        return TorchFile(_layouts(views, begins), [], dims)
    raise _not_torch(file)


def _not_torch(file: SourceFile) -> FormatError | UnsupportedError:
    for magic, what in _OTHERS:
        if file.head.startswith(magic):
            return FormatError(f"{shown(file.path)} is {what}")
    if file.head[257:262] == b"ustar":
        return UnsupportedError(f"{shown(file.path)} is a tar archive, which is refused: save it anew with a PyTorch of today")
    return FormatError(f"{shown(file.path)} begins with {shown(file.head[:8].hex())}: it is no file of torch.save; fetch it again")


def _require_end(end: int, size: int, file: SourceFile) -> None:
    if end != size:
        raise FormatError(f"{shown(file.path)}: {size - end} bytes follow the pickle of the state dict, expected none; do not trust it")


def _state_dict(value: Any, where: str) -> tuple[dict[str, TensorView], dict[str, int] | None]:
    """A plain state dict, or Whisper's {"dims": sizes, "model_state_dict": tensors}."""
    if isinstance(value, dict) and "model_state_dict" in value and value.keys() <= {"dims", "model_state_dict"}:
        return tensor_names(value["model_state_dict"], where), _dims(value.get("dims"), where)
    return tensor_names(value, where), None


def _dims(value: Any, where: str) -> dict[str, int]:
    """The ten sizes of a Whisper model, before anything is made of them."""
    if type(value) is not dict or value.keys() != set(DIMS):
        raise FormatError(f"{where}: dims must be a dictionary of the ten sizes {', '.join(DIMS)}; is it a Whisper checkpoint of OpenAI?")
    for name, size in value.items():
        if not is_dim(name, size):
            raise FormatError(f"{where}: dims: {name} is not a whole number in its range; the file is damaged")
    return {name: value[name] for name in DIMS}


def is_dim(name: str, size: Any) -> bool:
    """Whether a value can be one of Whisper's sizes; a number of layers is held smaller because each layer has many tensors."""
    return type(size) is int and 1 <= size <= (MAX_LAYERS if name.endswith("_layer") else MAX_DIM)


def _zip_storages(views: Mapping[str, TensorView], regions: Mapping[str, Region], file: SourceFile) -> dict[str, int]:
    """Storage key -> byte where it begins; storages and records must correspond one to one, with equal sizes."""
    used: dict[str, int] = {}
    for name, view in views.items():
        record = f"data/{view.storage.key}"
        if record not in regions:
            raise MismatchError(f"{shown(file.path)}: tensor {shown(name)} lies in {shown(record)}, which is missing; fetch the file again")
        region, expected = regions[record], _nbytes(view.storage)
        if region.end - region.begin != expected:
            raise MismatchError(
                f"{shown(file.path)}: {shown(record)} has {region.end - region.begin} bytes, tensor {shown(name)} says {expected}"
            )
        used[view.storage.key] = region.begin
    orphans = [name for name in regions if name.startswith("data/") and name[5:] not in used]
    if orphans:
        raise MismatchError(f"{shown(file.path)}: no tensor lies in {shown(orphans[0])}; save the bare state dict")
    return used


def _read_legacy(file: SourceFile) -> tuple[dict[str, TensorView], dict[str, int] | None, dict[str, int]]:
    """(tensors, dims, storage key -> byte where it begins) of the older format."""
    data, where = file.read(0, min(file.size, MAX_PICKLE_BYTES)), shown(file.path)
    magic, at = read_pickle(data, where)
    if type(magic) is not int or magic != LEGACY_MAGIC:
        raise FormatError(f"{where} is a pickle that torch.save did not write; expected a state dict")
    protocol, at = read_pickle(data, where, at)
    if type(protocol) is not int or protocol != LEGACY_PROTOCOL:
        raise UnsupportedError(f"{where}: protocol of the older torch format is not {LEGACY_PROTOCOL}; save it with a newer PyTorch")
    machine, at = read_pickle(data, where, at)
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise UnsupportedError(f"{where} does not say that it is little-endian; save it on a PC")
    value, at = read_pickle(data, where, at)
    views, dims = _state_dict(value, where)
    keys, at = read_pickle(data, where, at)
    storages = {view.storage.key: view.storage for view in views.values()}
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        raise MismatchError(f"{where}: the list of storages does not match the tensors; the file is damaged: fetch it again")
    return views, dims, _legacy_storages([storages[key] for key in keys], at, file)


def _legacy_storages(storages: list[Storage], at: int, file: SourceFile) -> dict[str, int]:
    """Walk over the storages: each states its count, and the last one ends the file."""
    begins = {}
    for storage in storages:
        if at + 8 > file.size:
            raise FormatError(f"{shown(file.path)} ends at byte {file.size} within its list of storages: it is cut short; fetch it again")
        count = int.from_bytes(file.read(at, 8), "little", signed=True)
        if count != storage.numel:
            raise MismatchError(f"{shown(file.path)}: storage {shown(storage.key)} has {count} elements, its tensors say {storage.numel}")
        begins[storage.key] = at + 8
        at += 8 + _nbytes(storage)
    if at != file.size:
        raise FormatError(f"{shown(file.path)} has {file.size} bytes, its storages end at {at}: it is cut short or damaged; fetch it again")
    return begins


def _nbytes(storage: Storage) -> int:
    return storage.numel * DTYPES[storage.dtype].itemsize


def _layouts(views: Mapping[str, TensorView], begins: Mapping[str, int]) -> dict[str, Layout]:
    return {
        name: Layout(
            view.storage.dtype,
            view.shape,
            view.strides,
            begins[view.storage.key] + view.offset * DTYPES[view.storage.dtype].itemsize,
        )
        for name, view in views.items()
    }
