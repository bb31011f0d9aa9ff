"""There and back: every kind of source in every type of weights keeps each bit, and our names give the original ones again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from qwenaudio_np.config import load_config
from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.convert.names import QWEN, WHISPER, encoder_tensors, from_upstream, to_upstream
from qwenaudio_np.convert.verify import verify_checkpoint
from tests.conversion_tools import ARRANGEMENTS, Entry, as_torch, stored, torch_file, torch_parts
from tests.make_checkpoint import make_checkpoint
from tests.torch_fixtures import BITS, FOLDER, number, state, text

TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
LAYOUTS = ("zip", "older")
DIMS = {"n_mels": 5, "n_audio_ctx": 12, "n_audio_state": 8, "n_audio_head": 2, "n_audio_layer": 2}  # of the fixtures' Whisper
DIMS |= {"n_vocab": 20, "n_text_ctx": 6, "n_text_state": 8, "n_text_head": 2, "n_text_layer": 1}


def comes_back(source: Path, expected: dict[str, Entry], folder: Path) -> None:
    """Convert into several shards and those into one again, and compare with what the source holds, under its own names."""
    convert_checkpoint(source, folder / "there", shard_size=50_000)
    convert_checkpoint(folder / "there", folder / "back")
    assert len(list((folder / "there").glob("*.safetensors"))) > 1 == len(list((folder / "back").glob("*.safetensors")))
    assert verify_checkpoint(folder / "there", source).ok and verify_checkpoint(folder / "back", source).ok
    for found in (stored(folder / "there"), stored(folder / "back")):
        assert upstream(QWEN, found) == expected


def upstream(family: str, found: dict[str, Entry]) -> dict[str, Entry]:
    """The tensors under their original names; the table must give each of ours back."""
    names = {to_upstream(family, name): name for name in found}
    assert len(names) == len(found) and {from_upstream(family, name or "") for name in names} == found.keys()
    return {str(name): found[ours] for name, ours in names.items()}


@pytest.mark.parametrize("dtype", TYPES)
def test_safetensors(tmp_path: Path, dtype: str) -> None:
    source = make_checkpoint(tmp_path / "source", dtype)
    comes_back(source, stored(source), tmp_path)


@pytest.mark.parametrize("j", range(len(ARRANGEMENTS)), ids=ARRANGEMENTS)
@pytest.mark.parametrize("i", range(len(TYPES)), ids=TYPES)
def test_torch_files(tmp_path: Path, i: int, j: int) -> None:
    """State dicts of tensors as torch.save writes them; each type and each arrangement meets both layouts of the file."""
    source = make_checkpoint(tmp_path / "source", list(TYPES)[i])
    expected = stored(source)
    comes_back(as_torch(source, LAYOUTS[(i + j) % 2], arrangement=ARRANGEMENTS[j]), expected, tmp_path)


@pytest.mark.parametrize("dtype", TYPES)
def test_sharded_torch_files(tmp_path: Path, dtype: str) -> None:
    """One shard of either layout."""
    source = make_checkpoint(tmp_path / "source", dtype)
    expected = stored(source)
    (source / "model.safetensors").unlink()
    weight_map = {}
    for i, layout in enumerate(LAYOUTS, 1):
        shard = f"pytorch_model-{i:05d}-of-00002.bin"
        parts, storages = torch_parts({name: entry for k, (name, entry) in enumerate(expected.items()) if k % 2 == i - 1})
        (source / shard).write_bytes(torch_file(state(parts), storages, layout))
        weight_map |= dict.fromkeys(parts, shard)
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    comes_back(source, expected, tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_tied_head(tmp_path: Path, dtype: str, layout: str) -> None:
    """Two names of one storage become two tensors, where the config asks for both."""
    source = make_checkpoint(tmp_path / "source", dtype)
    expected = stored(source)
    expected["lm_head.weight"] = expected["transformer.wte.weight"]
    comes_back(as_torch(source, layout, tied=True), expected, tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_whisper(tmp_path: Path, dtype: str, layout: str) -> None:
    """Every bit of the encoder, and for each of its names the way back; names as in a real file."""
    rng, kind, shapes = np.random.default_rng(1), TYPES[dtype], encoder_tensors(DIMS)
    names = [name for name in json.loads((FOLDER / "whisper.json").read_text()) if name.startswith("encoder.")]
    entries = {}
    for name in names:
        shape = list(shapes[from_upstream(WHISPER, name) or ""])
        values = rng.integers(0, 9999, shape).astype(BITS[kind])  # the bits of numbers, none of them infinite
        entries[name] = Entry(kind, shape, values.tobytes())
    parts, storages = torch_parts(entries)
    dims = b"".join(text(name) + number(size) for name, size in DIMS.items())
    weights = b"".join(text(name) + code for name, code in parts.items())
    code = b"\x80\x02}(" + text("dims") + b"}(" + dims + b"u" + text("model_state_dict") + b"}(" + weights + b"uu."
    (tmp_path / "tiny.pt").write_bytes(torch_file(code, storages, layout))
    convert_checkpoint(tmp_path / "tiny.pt", tmp_path / "there")
    assert upstream(WHISPER, stored(tmp_path / "there")) == entries
    assert verify_checkpoint(tmp_path / "there", tmp_path / "tiny.pt").ok


def test_halves_of_characters_in_a_name_and_in_the_config_come_through(tmp_path: Path) -> None:
    """A file's name may be no UTF-8 and a config may hold any escape; what is written of them is read again."""
    source = make_checkpoint(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"note": "\udce8 \u4f60"}))
    weights = next(source.glob("*.safetensors"))
    shutil.move(weights, single := tmp_path / os.fsdecode(b"mod\xe8le.safetensors"))
    convert_checkpoint(single, tmp_path / "out", config=source)
    assert verify_checkpoint(tmp_path / "out", single).ok
    assert load_config(tmp_path / "out") and json.loads((tmp_path / "out/config.json").read_text("utf-8"))["note"] == "\udce8 \u4f60"
    assert os.fsdecode(b"mod\xe8le") in json.loads((tmp_path / "out/manifest.json").read_text("utf-8"))["sources"][0]["name"]
