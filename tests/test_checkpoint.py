"""Folder -> weights: golden checkpoints load, every damaged folder gives one line that names the tensor and the file."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from qwenaudio_np.checkpoint import INDEX_FILE, Weights, checkpoint_summary, load_weights
from qwenaudio_np.config import ModelConfig, load_config
from qwenaudio_np.errors import FormatError, MismatchError, QwenAudioError, ResourceError, UnsafeError, UnsupportedError

GOLDEN = Path(__file__).parent / "golden"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
LN, CONV = "transformer.ln_f.weight", "transformer.audio.conv1.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny golden checkpoint that a test may damage."""
    return Path(shutil.copytree(GOLDEN / "tiny" / "checkpoint", tmp_path / "checkpoint", copy_function=shutil.copyfile))


def load(folder: Path) -> Weights:
    return load_weights(folder, load_config(GOLDEN / "tiny" / "checkpoint"))


def tied(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, text=dataclasses.replace(config.text, tie_word_embeddings=True))


def edit_shard(folder: Path, shard: str, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Rewrite a shard through the reference library after changing its tensors."""
    tensors = safetensors.numpy.load_file(folder / shard)
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / shard)


def edit_map(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the index after changing its weight_map."""
    index = json.loads((folder / INDEX_FILE).read_text())
    change(index["weight_map"])
    (folder / INDEX_FILE).write_text(json.dumps(index))


def refused(folder: Path, kind: type[QwenAudioError], *said: str) -> None:
    """Loading raises exactly this class, in one line that says all of this."""
    with pytest.raises(QwenAudioError) as caught:
        load(folder)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert "\n" not in message and message.isascii()
    for part in said:
        assert part in message


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
    assert weights.nbytes == json.loads((folder / INDEX_FILE).read_text())["metadata"]["total_size"]


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


def test_missing_tensor(folder: Path) -> None:
    edit_shard(folder, SECOND, lambda tensors: tensors.pop(LN))
    edit_map(folder, lambda names: names.pop(LN))
    refused(folder, MismatchError, LN, "missing", FIRST, "config.json")


def test_unexpected_tensor(folder: Path) -> None:
    edit_shard(folder, SECOND, lambda tensors: tensors.update({"transformer.h.9.ln_1.weight": tensors[LN]}))
    edit_map(folder, lambda names: names.update({"transformer.h.9.ln_1.weight": SECOND}))
    refused(folder, MismatchError, "transformer.h.9.ln_1.weight", SECOND, "not expected")


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


def test_too_little_memory_is_said_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwenaudio_np.checkpoint.available_bytes", lambda: 1_000_000)
    monkeypatch.setattr("qwenaudio_np.safetensors_file.SafetensorsFile.tensor", lambda *_: pytest.fail("read a tensor"))
    refused(folder, ResourceError, "GB needed", "0.0 GB available")


def test_force_loads_with_too_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwenaudio_np.checkpoint.available_bytes", lambda: 1_000_000)
    assert len(load_weights(folder, load_config(folder), force=True)) == 82


def test_longer_prompts_and_float64_need_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(folder)
    monkeypatch.setattr("qwenaudio_np.checkpoint.available_bytes", lambda: 600_000_000)
    load_weights(folder, config, positions=1000)
    with pytest.raises(ResourceError):
        load_weights(folder, config, positions=8192)


def test_weights_are_a_mapping(folder: Path) -> None:
    weights = load(folder)
    assert LN in weights and "nothing" not in weights
    with pytest.raises(KeyError):
        weights["nothing"]
