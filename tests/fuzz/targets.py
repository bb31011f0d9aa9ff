"""What is fuzzed: each kind of input that may come from strangers, with the function of this package that reads it to its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from qwenaudio_np.config import load_config
from qwenaudio_np.convert.manifest import load_manifest
from qwenaudio_np.convert.source_file import open_source_file
from qwenaudio_np.convert.state_objects import tensor_names
from qwenaudio_np.convert.state_pickle import read_pickle
from qwenaudio_np.convert.weight_source import open_weights
from qwenaudio_np.safetensors_file import DTYPES, open_safetensors
from qwenaudio_np.shards import INDEX_FILE, Shards
from qwenaudio_np.vocabulary import read_ranks
from tests.torch_fixtures import older, torch_zip

Target = Callable[[bytes, Path], None]  # reads an input, with a folder to put it in; a QwenAudioError means that it was refused

MOST_ELEMENTS = 1 << 16  # of a storage that is put into a container
CORPUS = Path(__file__).resolve().parent / "corpus"


def read_header(data: bytes, folder: Path) -> None:
    """A safetensors file, by the loader and by the converter."""
    path = _written(folder / "model.safetensors", data)
    stored = open_safetensors(path)
    assert all(item.array.dtype == DTYPES[item.dtype] for item in stored.values())
    assert sum(item.array.nbytes for item in stored.values()) <= len(data)
    _read_weights(path)


def read_state_pickle(data: bytes, folder: Path) -> None:
    """The pickle of a state dict, alone."""
    tensor_names(read_pickle(data, "'input'")[0], "'input'")


def read_packed_pickle(data: bytes, folder: Path) -> None:
    """The same in a sound container, by turns of either format, with the storages that the pickle asks for."""
    value = read_pickle(data, "'input'")[0]
    nested = isinstance(value, dict) and "model_state_dict" in value
    views = tensor_names(value["model_state_dict"] if nested else value, "'input'").values()
    small = [view.storage for view in views if view.storage.numel <= MOST_ELEMENTS]
    storages = {storage.key: (storage.numel, bytes(storage.numel * DTYPES[storage.dtype].itemsize)) for storage in small}
    bare = {key: values for key, (_, values) in storages.items()}
    _read_weights(_written(folder / "model.bin", torch_zip(data, bare) if len(data) % 2 else older(data, storages)))


def read_torch_file(data: bytes, folder: Path) -> None:
    """A whole file of torch.save, zip or older."""
    _read_weights(_written(folder / "model.bin", data))


def read_index(data: bytes, folder: Path) -> None:
    """The index of a sharded checkpoint, by the converter and by the loader."""
    for shard in sorted((CORPUS / "shards").iterdir()):
        if not (folder / shard.name).exists():
            shutil.copyfile(shard, folder / shard.name)
    _written(folder / INDEX_FILE, data)
    _read_weights(folder)
    Shards(folder)


def read_config(data: bytes, folder: Path) -> None:
    """config.json."""
    _written(folder / "config.json", data)
    load_config(folder)


def read_manifest(data: bytes, folder: Path) -> None:
    """manifest.json."""
    _written(folder / "manifest.json", data)
    load_manifest(folder)


def read_vocabulary(data: bytes, folder: Path) -> None:
    """qwen.tiktoken."""
    read_ranks(_written(folder / "qwen.tiktoken", data))


def _written(path: Path, data: bytes) -> Path:
    """The file with these bytes. It is not emptied first: some file systems then write it to the disk when it is closed."""
    with open(path, "r+b" if path.exists() else "wb") as stream:
        stream.write(data)
        stream.truncate()
    return path


def _read_weights(path: Path) -> None:
    """Headers, hashes and every tensor."""
    with open_weights(path) as source:
        for file, regions in zip(source.files, source.regions, strict=True):
            with open_source_file(file.path) as again:
                again.sha256(regions)
        for tensor in source.tensors.values():
            for block in tensor.rows():
                assert block.dtype == DTYPES[tensor.dtype] and block.shape[1:] == tensor.shape[1:]


TARGETS: Mapping[str, Target] = {
    "header": read_header,
    "pickle": read_state_pickle,
    "packed": read_packed_pickle,
    "torch": read_torch_file,
    "index": read_index,
    "config": read_config,
    "manifest": read_manifest,
    "vocabulary": read_vocabulary,
}
