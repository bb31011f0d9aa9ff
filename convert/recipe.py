"""What a conversion will write, decided and checked before the first byte: config, copied files, and each tensor's origin.

A Qwen-Audio or Qwen-1 source gives a checkpoint of the same kind; a Whisper source alone gives an encoder, a folder with
nothing but an `audio` section (graft.py takes the .pt file itself). Of a source folder only the files named in COPIED are read or copied:
code files are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qwenaudio_np.checkpoint import FLOAT_NAMES, INDEX_FILE
from qwenaudio_np.config import ENCODER_TYPE, load_config, read_json
from qwenaudio_np.errors import FormatError, MismatchError, UnsupportedError, UsageError, shown
from qwenaudio_np.files import read_bytes, read_text
from qwenaudio_np.json_fields import parse_json
from qwenaudio_np.names import EMBEDDING, OUTPUT_HEAD, Shape, expected_tensors, is_ignored, optional_tensors
from qwenaudio_np.shards import MANIFEST
from qwenaudio_np.vocabulary import MAX_VOCABULARY_BYTES, VOCABULARY_FILE, read_ranks
from qwenaudio_np.weight_plan import can_be_quantised

from . import names
from .torch_files import AUDIO_DIMS, is_dim
from .weight_source import SourceTensor, WeightSource, same_place

CONFIG = "config.json"
OPTIONAL_FILES = ("generation_config.json", "tokenizer_config.json")
COPIED = (CONFIG, VOCABULARY_FILE, *OPTIONAL_FILES)
OWN_FILES = (*COPIED, INDEX_FILE, MANIFEST)  # what is written beside the weights
MAX_COPIED_BYTES = 1 << 20


@dataclass(frozen=True)
class Recipe:
    """config.json's fields, other files by name, tensors in the order they are written, and names of what is left out.

    `stated` is the config.json that was read, empty where there was none.
    """

    config: dict[str, Any]
    copied: dict[str, bytes]
    tensors: dict[str, SourceTensor]
    dropped: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()  # tensors made here, from a seed
    stated: bytes = b""


def model_recipe(source: WeightSource, folder: Path) -> Recipe:
    """Weights of a Qwen-Audio or Qwen-1 model, with config and vocabulary from `folder`.

    Raises MismatchError (tensors do not fit the config), UsageError (no vocabulary, or quantised already), FormatError, UnsupportedError.
    """
    config = load_config(folder)
    codes = [name for name in source.tensors if name.endswith(".codes") and can_be_quantised(name.removesuffix(".codes"))]
    if codes:
        where = shown(source.files[0].path)
        raise UsageError(f"{where} is quantised already (it has {shown(codes[0])}); convert the checkpoint that it was made from")
    tensors = require_tensors(source.tensors, expected_tensors(config), optional_tensors(config))
    dropped = [name for name in source.tensors if is_ignored(name)]
    if config.text.tie_word_embeddings and same_place(tensors.get(OUTPUT_HEAD), tensors[EMBEDDING]):
        del tensors[OUTPUT_HEAD]
        dropped.append(OUTPUT_HEAD)
    text = read_text(folder / CONFIG, MAX_COPIED_BYTES)
    return Recipe(parse_json(text, str(folder / CONFIG)), copied_files(folder), tensors, tuple(dropped), stated=text.encode())


def encoder_recipe(source: WeightSource) -> Recipe:
    """Whisper's encoder under our names; its decoder is left out. Raises MismatchError, UnsupportedError."""
    if source.dims is None:
        raise MismatchError(f"{shown(source.files[0].path)} states no sizes (dims); expected a Whisper checkpoint, a .pt file of OpenAI")
    ours = {mapped: tensor for name, tensor in source.tensors.items() if (mapped := names.from_upstream(names.WHISPER, name))}
    dropped = [name for name in source.tensors if not names.from_upstream(names.WHISPER, name)]
    unknown = [name for name in dropped if not name.startswith("decoder.")]
    if unknown:
        raise MismatchError(f"{shown(source.files[0].path)}: tensor {shown(unknown[0])} belongs to no Whisper model; is it the right file?")
    config = {"model_type": ENCODER_TYPE, "audio": audio_section(source.dims)}
    stated = f"the header (dims) of {shown(source.files[0].path)}"
    return Recipe(config, {}, require_tensors(ours, names.encoder_tensors(source.dims), stated=stated), tuple(dropped))


def audio_section(dims: Mapping[str, int]) -> dict[str, int]:
    """Whisper's sizes under the names of config.json."""
    return {
        "n_mels": dims["n_mels"],
        "n_ctx": dims["n_audio_ctx"],
        "n_state": dims["n_audio_state"],
        "n_head": dims["n_audio_head"],
        "n_layer": dims["n_audio_layer"],
    }


def encoder_dims(config: Mapping[str, Any], where: str) -> dict[str, int]:
    """The reverse: Whisper's sizes from the config of a folder that holds an encoder alone. Raises FormatError."""
    audio = config.get("audio")
    names_of = dict(zip(audio_section(dict.fromkeys(AUDIO_DIMS, 0)), AUDIO_DIMS, strict=True))
    if type(audio) is not dict or audio.keys() != names_of.keys() or not all(is_dim(names_of[name], size) for name, size in audio.items()):
        raise FormatError(f"{shown(where)}: audio must give the sizes {', '.join(names_of)}; convert the encoder again")
    return {names_of[name]: size for name, size in audio.items()}


def with_dtype(recipe: Recipe, weights: str | None) -> Recipe:
    """The recipe with config.json's `torch_dtype` saying how the weights are stored; None leaves it."""
    return recipe if weights is None else replace(recipe, config=recipe.config | {"torch_dtype": weights})


def copied_files(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of the vocabulary, checked, and of the small files beside it that exist."""
    if not (folder / VOCABULARY_FILE).exists():
        advice = "copy it there, or name a folder that has it and config.json with --config"
        raise UsageError(f"{shown(folder)} has no {VOCABULARY_FILE}; {advice}")
    read_ranks(folder / VOCABULARY_FILE)
    copied = {VOCABULARY_FILE: read_bytes(folder / VOCABULARY_FILE, MAX_VOCABULARY_BYTES)}
    for name in OPTIONAL_FILES:
        if (folder / name).exists():
            read_json(folder / name)
            copied[name] = read_bytes(folder / name, MAX_COPIED_BYTES)
    return copied


def require_tensors(
    found: Mapping[str, SourceTensor],
    expected: Mapping[str, Shape],
    optional: Mapping[str, Shape] | None = None,
    types: Mapping[str, tuple[str, ...]] | None = None,
    stated: str = CONFIG,
) -> dict[str, SourceTensor]:
    """The tensors in the order of `expected`, each there, of its shape, a float (or of its `types`); no others but known buffers.

    `stated` says in messages where the expected shapes come from.

    Raises MismatchError, or UnsupportedError for a type.
    """
    wanted = {**expected, **(optional or {})}
    missing = [name for name in expected if name not in found]
    if missing:
        raise MismatchError(f"tensor {shown(missing[0])} is missing ({len(missing)} in all); does {stated} belong to the weights?")
    unexpected = [name for name in found if name not in wanted and not is_ignored(name)]
    if unexpected:
        raise MismatchError(f"tensor {shown(unexpected[0])} is not expected ({len(unexpected)} in all); does {stated} belong to it?")
    for name, shape in wanted.items():
        if name in found and found[name].shape != shape:
            raise MismatchError(f"tensor {shown(name)} is {list(found[name].shape)}, expected {list(shape)}; does {stated} fit?")
        allowed = (types or {}).get(name, tuple(FLOAT_NAMES))
        if name in found and found[name].dtype not in allowed:
            raise UnsupportedError(f"tensor {shown(name)} is {found[name].dtype}, expected one of {', '.join(allowed)}")
    return {name: found[name] for name in wanted if name in found}
