"""Damaged folders of weights: one line that names the tensor and the file, and nothing outside the folder is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from qwenaudio_np.checkpoint import INDEX_FILE, load_weights
from qwenaudio_np.config import load_config
from qwenaudio_np.errors import FormatError, MismatchError, UnsafeError, UnsupportedError
from tests.checkpoint_tools import FIRST, GOLDEN, LN, SECOND, copy_of_tiny, edit_map, edit_shard, refused

CONV = "transformer.audio.conv1.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny golden checkpoint that a test may damage."""
    return copy_of_tiny(tmp_path)


def test_missing_tensor(folder: Path) -> None:
    edit_shard(folder, SECOND, lambda tensors: tensors.pop(LN))
    edit_map(folder, lambda names: names.pop(LN))
    refused(folder, MismatchError, LN, "missing", FIRST, "config.json")


def test_unexpected_tensor(folder: Path) -> None:
    edit_shard(folder, SECOND, lambda tensors: tensors.update({"transformer.h.9.ln_1.weight": tensors[LN]}))
    edit_map(folder, lambda names: names.update({"transformer.h.9.ln_1.weight": SECOND}))
    refused(folder, MismatchError, "transformer.h.9.ln_1.weight", SECOND, "not expected")


def test_a_name_that_no_file_system_has(folder: Path) -> None:
    edit_map(folder, lambda names: names.update({LN: "a" * 300 + ".safetensors"}))
    refused(folder, FormatError, "aaa", ".safetensors", "fetch the checkpoint again")


@pytest.mark.parametrize("shape", [(63,), (64, 1), (), (0,)])
def test_misshapen_tensor(folder: Path, shape: tuple[int, ...]) -> None:
    edit_shard(folder, SECOND, lambda tensors: tensors.update({LN: np.zeros(shape, np.float32)}))
    refused(folder, MismatchError, LN, SECOND, f"is {list(shape)}", "asks for [64]")


def test_transposed_convolution(folder: Path) -> None:
    edit_shard(folder, SECOND, lambda tensors: tensors.update({CONV: np.ascontiguousarray(tensors[CONV].transpose(1, 0, 2))}))
    refused(folder, MismatchError, CONV, "is [80, 48, 3]", "asks for [48, 80, 3]")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.bool_])
def test_wrong_type(folder: Path, dtype: type) -> None:
    edit_shard(folder, SECOND, lambda tensors: tensors.update({LN: tensors[LN].astype(dtype)}))
    refused(folder, UnsupportedError, LN, SECOND, "expected one of F64, F32, F16, BF16")


def test_missing_shard(folder: Path) -> None:
    (folder / SECOND).unlink()
    refused(folder, FormatError, SECOND, "not in the folder")


def test_dangling_link(folder: Path) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to("nowhere")
    refused(folder, FormatError, SECOND, "not in the folder")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_shard(folder: Path, share: float) -> None:
    os.truncate(folder / SECOND, int((folder / SECOND).stat().st_size * share))
    refused(folder, FormatError, SECOND)


def test_zero_filled_shard_is_not_a_header(folder: Path) -> None:
    (folder / SECOND).write_bytes(bytes(2_000_000))
    refused(folder, FormatError, SECOND, "header length 0")


def test_shard_is_a_directory(folder: Path) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).mkdir()
    refused(folder, FormatError, SECOND, "directory")


def test_swapped_shards(folder: Path) -> None:
    (folder / FIRST).rename(folder / "x")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "x").rename(folder / SECOND)
    refused(folder, MismatchError, INDEX_FILE, "does not hold it", "lm_head.weight", FIRST)


def test_tensor_in_two_shards(folder: Path) -> None:
    extra = safetensors.numpy.load_file(folder / SECOND)[LN]
    edit_shard(folder, FIRST, lambda tensors: tensors.update({LN: extra}))
    refused(folder, MismatchError, LN, FIRST, SECOND)


def test_tensor_in_the_index_alone(folder: Path) -> None:
    edit_map(folder, lambda names: names.update({"ghost": FIRST}))
    refused(folder, MismatchError, "ghost", FIRST, "does not hold it")


def test_tensor_in_a_shard_alone(folder: Path) -> None:
    edit_map(folder, lambda names: names.pop(LN))
    refused(folder, MismatchError, LN, SECOND, "but not in")


OUTSIDE = [
    *("../" + FIRST, "a/../" + FIRST, "/etc/passwd", "/proc/self/mem", "/dev/zero", "C:\\model.safetensors", "..\\model.safetensors"),
    *("~/model.safetensors", "https://example.org/model.safetensors", "", "..", ".hidden.safetensors", "a..b.safetensors"),
    *("model\0.safetensors", "model\n.safetensors", "x:y.safetensors", "sub/" + FIRST),
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_index_points_outside(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused from the text alone: no weight file is opened, not even the good ones."""
    edit_map(folder, lambda names: names.update({LN: name}))
    monkeypatch.setattr("qwenaudio_np.checkpoint.SafetensorsFile", lambda path: pytest.fail(f"opened {path}"))
    refused(folder, UnsafeError, INDEX_FILE, "expected a plain file name")


@pytest.mark.parametrize("name", [None, 5, True, ["model.safetensors"], {"file": FIRST}])
def test_index_entry_is_no_text(folder: Path, name: Any) -> None:
    edit_map(folder, lambda names: names.update({LN: name}))
    refused(folder, FormatError, INDEX_FILE, LN, "expected a name")


def test_index_names_a_pickle(folder: Path) -> None:
    edit_map(folder, lambda names: names.update({LN: "pytorch_model.bin"}))
    refused(folder, FormatError, "pytorch_model.bin", "ends in .safetensors")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "\ufeff{}", "[" * 100_000, '{"weight_map":{},"weight_map":{}}', '{"a": NaN}'),
        *("{}", '{"weight_map":[]}', '{"weight_map":{}}'),
    ],
    ids=range(10),
)
def test_broken_index(folder: Path, text: str) -> None:
    (folder / INDEX_FILE).write_text(text, encoding="utf-8")
    refused(folder, FormatError, INDEX_FILE)


def test_only_pickled_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model-00001-of-00001.bin").write_bytes(b"never opened")
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    refused(tmp_path, FormatError, "pytorch_model*.bin", "convert them to safetensors")


def test_no_weights_at_all(tmp_path: Path) -> None:
    refused(tmp_path, FormatError, "neither model.safetensors nor")
    refused(tmp_path / "nowhere", FormatError, "not a folder")


def test_pickle_under_a_safetensors_name(folder: Path) -> None:
    (folder / SECOND).write_bytes(b"PK\x03\x04" + bytes(5000))
    refused(folder, FormatError, SECOND, "convert it to safetensors")


def test_config_of_another_checkpoint(folder: Path) -> None:
    config = load_config(GOLDEN / "short_context_bf16" / "checkpoint")
    with pytest.raises(MismatchError, match=r"config\.json"):
        load_weights(folder, config)
