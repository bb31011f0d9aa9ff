"""Folder -> weights: golden checkpoints load bit for bit, in every layout of files; too little memory is said before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from qwenaudio_np.checkpoint import INDEX_FILE, checkpoint_summary, load_weights, mapped_bytes
from qwenaudio_np.cli import main
from qwenaudio_np.config import ModelConfig, load_config
from qwenaudio_np.errors import MismatchError, ResourceError
from qwenaudio_np.safetensors_file import SafetensorsFile
from tests.checkpoint_tools import FIRST, GOLDEN, LN, SECOND, copy_of_tiny, edit_map, edit_shard, load, refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny golden checkpoint that a test may damage."""
    return copy_of_tiny(tmp_path)


def tied(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, text=dataclasses.replace(config.text, tie_word_embeddings=True))


@pytest.mark.parametrize(("name", "label", "width"), [("tiny", "float32", 4), ("short_context_bf16", "bfloat16", 2)])
def test_golden_checkpoints(name: str, label: str, width: int) -> None:
    folder = GOLDEN / name / "checkpoint"
    weights = load_weights(folder, load_config(folder))
    assert weights.label == label and set(weights.dtypes) == {label}
    truth = {n: t for path in folder.glob("*.safetensors") for n, t in safetensors.deserialize(path.read_bytes())}
    assert set(weights) == truth.keys() and len(weights) == len(truth)
    for tensor, array in weights.items():
        assert array.tobytes() == bytes(truth[tensor]["data"]), tensor
        assert array.dtype == (np.float32 if width == 4 else np.uint16)
        assert array.flags.aligned and array.flags.c_contiguous and not array.flags.writeable
    assert weights.nbytes == mapped_bytes(weights) == json.loads((folder / INDEX_FILE).read_text())["metadata"]["total_size"]
    assert mapped_bytes({name: np.array(array) for name, array in weights.items()}) == 0


def test_summary_of_a_checkpoint(folder: Path) -> None:
    summary = checkpoint_summary(folder, load_config(folder))
    assert [(file.name, file.nbytes) for file in summary.files] == [(name, (folder / name).stat().st_size) for name in (FIRST, SECOND)]
    assert [file.dtypes for file in summary.files] == [{"float32": 41}, {"float32": 41}]
    tensors = safetensors.numpy.load_file(folder / FIRST) | safetensors.numpy.load_file(folder / SECOND)
    encoder = sum(array.size for name, array in tensors.items() if ".audio." in name)
    assert summary.encoder_parameters == encoder
    assert summary.encoder_parameters + summary.decoder_parameters == sum(array.size for array in tensors.values())
    assert summary.weight_bytes == 3_683_840


def test_single_file_is_preferred_to_the_index(folder: Path) -> None:
    merged = safetensors.numpy.load_file(folder / FIRST) | safetensors.numpy.load_file(folder / SECOND)
    merged[LN] = np.full_like(merged[LN], 7)
    safetensors.numpy.save_file(merged, folder / "model.safetensors")
    assert load(folder)[LN][0] == 7
    (folder / INDEX_FILE).unlink()
    assert load(folder)[LN][0] == 7
    assert [file.name for file in checkpoint_summary(folder, load_config(folder)).files] == ["model.safetensors"]


def test_hub_layout_with_links(folder: Path) -> None:
    (folder.parent / "blobs").mkdir()
    for name in (FIRST, SECOND, INDEX_FILE):
        (folder / name).rename(folder.parent / "blobs" / name[:8] if name == INDEX_FILE else folder.parent / "blobs" / name)
        (folder / name).symlink_to(Path("..", "blobs", name[:8] if name == INDEX_FILE else name))
    assert len(load(folder)) == 82


def test_known_buffers_and_other_files_do_not_disturb(folder: Path) -> None:
    buffers = {"transformer.rotary_emb.inv_freq": np.ones(8, np.float32), "transformer.h.0.attn.masked_bias": np.array(-1e4, np.float32)}
    edit_shard(folder, SECOND, lambda tensors: tensors.update(buffers))
    edit_map(folder, lambda names: names.update(dict.fromkeys(buffers, SECOND)))
    (folder / "model-00003-of-00003.safetensors.incomplete").write_bytes(b"x")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    assert not set(load(folder)) & set(buffers)


def test_mixed_types(folder: Path) -> None:
    edit_shard(folder, SECOND, lambda tensors: tensors.update({LN: tensors[LN].astype(np.float16)}))
    weights = load(folder)
    assert (weights.label, weights.dtypes) == ("mixed", {"float32": 81, "float16": 1})
    assert weights[LN].dtype == np.float16


@pytest.mark.parametrize("stored", [True, False])
def test_tied_embeddings(folder: Path, stored: bool) -> None:
    """lm_head is wte whether or not the checkpoint holds one; what it holds is not read."""
    config = tied(load_config(folder))
    if not stored:
        edit_shard(folder, FIRST, lambda tensors: tensors.pop("lm_head.weight"))
        edit_map(folder, lambda names: names.pop("lm_head.weight"))
    weights = load_weights(folder, config)
    assert weights["lm_head.weight"] is weights["transformer.wte.weight"]
    assert weights.nbytes == 3_683_840 - 4544 * 64 * 4
    assert sum(weights.dtypes.values()) == 81


def test_tied_embeddings_still_check_what_is_stored(folder: Path) -> None:
    edit_shard(folder, FIRST, lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"][:7]}))
    with pytest.raises(MismatchError, match=r"lm_head.weight.*\[7, 64\].*\[4544, 64\]"):
        load_weights(folder, tied(load_config(folder)))


def test_too_little_memory_is_said_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwenaudio_np.checkpoint.available_bytes", lambda: 1_000_000)
    monkeypatch.setattr("qwenaudio_np.safetensors_file.SafetensorsFile.tensor", lambda *_: pytest.fail("read a tensor"))
    refused(folder, ResourceError, "GB needed", "0.0 GB available")


def test_mapped_weights_are_not_counted_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a limit on address space, what is mapped is no longer available, but it is what was needed."""
    mapped: list[Path] = []
    begin = SafetensorsFile.__init__
    monkeypatch.setattr(SafetensorsFile, "__init__", lambda file, path: (mapped.append(path), begin(file, path))[1])
    monkeypatch.setattr("qwenaudio_np.checkpoint.available_bytes", lambda: 600_000_000 - 600_000_000 * len(mapped))
    assert load_weights(folder, load_config(folder), positions=1000) and mapped


def test_force_loads_with_too_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwenaudio_np.checkpoint.available_bytes", lambda: 1_000_000)
    assert len(load_weights(folder, load_config(folder), force=True)) == 82


def test_longer_prompts_and_float64_need_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(folder)
    monkeypatch.setattr("qwenaudio_np.checkpoint.available_bytes", lambda: 600_000_000)
    load_weights(folder, config, positions=1000)
    with pytest.raises(ResourceError):
        load_weights(folder, config, positions=8192)


@pytest.mark.parametrize(("weights", "kv", "itemsize"), [(None, None, 4), ("int8", None, 2), ("int4", np.float32, 4), (None, np.uint16, 2)])
def test_memory_for_keys_and_values_as_they_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, weights: str | None, kv: type | None, itemsize: int
) -> None:
    kept: list[np.dtype] = []
    monkeypatch.setattr("qwenaudio_np.checkpoint.needed_bytes", lambda *rest: kept.append(np.dtype(rest[-1])) or 0)
    load_weights(folder, load_config(folder), weights=weights, kv=kv)
    assert kept[0].itemsize == itemsize


def test_a_checkpoint_stored_in_8_bits_needs_memory_for_keys_and_values_in_bfloat16(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["convert", str(folder), str(tmp_path / "int8"), "--weights", "int8"]) == 0
    kept: list[np.dtype] = []
    monkeypatch.setattr("qwenaudio_np.checkpoint.needed_bytes", lambda *rest: kept.append(np.dtype(rest[-1])) or 0)
    load_weights(tmp_path / "int8", load_config(tmp_path / "int8"))
    assert kept == [np.dtype(np.uint16)]


def test_weights_are_a_mapping(folder: Path) -> None:
    weights = load(folder)
    assert LN in weights and "nothing" not in weights
    with pytest.raises(KeyError):
        weights["nothing"]
