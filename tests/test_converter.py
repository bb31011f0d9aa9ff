"""Conversion of every kind of source, byte for byte."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.convert.verify import verify_checkpoint
from qwenaudio_np.errors import FormatError, MismatchError, UnsafeError, UnsupportedError, UsageError
from tests.conversion_tools import SMALL, Entry, as_torch, everything, left_over, stored
from tests.make_checkpoint import all_logits, make_checkpoint, shapes
from tests.torch_fixtures import FOLDER

# --- sources -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["checkpoint", "checkpoint_bin"])
def test_golden_checkpoints_bit_for_bit(short: Path, out: Path, kind: str) -> None:
    result = convert_checkpoint(short / kind, out, shard_size=SMALL)
    assert stored(out) == stored(short / "checkpoint") and result.warnings == ()
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3 and index["metadata"]["total_size"] == sum(len(e.data) for e in stored(out).values())
    for name in ("qwen.tiktoken", "generation_config.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (short / kind / name).read_bytes()
    assert left_over(out.parent) == [] and verify_checkpoint(out, short / "checkpoint").ok


def test_the_result_answers_like_the_source(short: Path, out: Path) -> None:
    convert_checkpoint(short / "checkpoint_bin", out, weights="float32")
    case = json.loads((short / "cases" / "text_only" / "case.json").read_text())
    model = qwenaudio_np.load(out, backend="reference")
    assert model.weights.label == "float32"
    logits = all_logits(model, case["input_ids"])
    assert int(logits[-1].argmax()) == case["greedy_ids"][0]
    np.testing.assert_array_equal(logits, all_logits(qwenaudio_np.load(short / "checkpoint", backend="reference"), case["input_ids"]))


@pytest.mark.parametrize(("weights", "code"), [("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_every_type_to_every_type(tmp_path: Path, out: Path, dtype: str, weights: str, code: str) -> None:
    source = make_checkpoint(tmp_path / "source", dtype=dtype)
    convert_checkpoint(source, out, weights=weights)
    before, after = stored(source), stored(out)
    assert before.keys() == after.keys() and {entry.dtype for entry in after.values()} == {code}
    for name in before:
        wide, narrow = as_float64(before[name]), as_float64(after[name])
        step = {"F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}[code]
        # Half a unit in the last place, and below the normal range of float16 half its smallest step.
        assert np.all(np.abs(wide - narrow) <= np.abs(wide) * step + (2.0**-25 if code == "F16" else 0)), name
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == weights
    assert verify_checkpoint(out, source).ok


def as_float64(entry: Entry) -> np.ndarray:
    if entry.dtype == "BF16":
        return (np.frombuffer(entry.data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(entry.data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[entry.dtype]).astype(np.float64)


def test_there_and_back(short: Path, out: Path, tmp_path: Path) -> None:
    convert_checkpoint(short / "checkpoint", out, weights="float32")
    convert_checkpoint(out, tmp_path / "back", weights="bfloat16")
    assert stored(tmp_path / "back") == stored(short / "checkpoint")


def test_the_same_input_gives_the_same_bytes(short: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert_checkpoint(short / "checkpoint_bin", tmp_path / name, shard_size=SMALL)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


def test_manifest_tells_the_truth(short: Path, out: Path) -> None:
    convert_checkpoint(short / "checkpoint_bin", out, shard_size=SMALL)
    manifest = json.loads((out / "manifest.json").read_text())
    files = everything(out)
    del files["manifest.json"]
    assert manifest["files"] == {n: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in files.items()}
    assert manifest["tensors"] == {
        name: {"shape": entry.shape, "dtype": entry.dtype, "sha256": hashlib.sha256(entry.data).hexdigest()}
        for name, entry in stored(out).items()
    }
    sources = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (short / "checkpoint_bin").iterdir()}
    assert {entry["name"]: entry["sha256"] for entry in manifest["sources"]} == sources
    assert all(entry["bytes"] == (short / "checkpoint_bin" / entry["name"]).stat().st_size for entry in manifest["sources"])
    roles = {"config.json": "config", "qwen.tiktoken": "config", "pytorch_model.bin.index.json": "index"}
    assert roles.items() <= {entry["name"]: entry["role"] for entry in manifest["sources"]}.items()
    assert manifest["version"] == qwenaudio_np.__version__ and manifest["options"]["shard_size"] == SMALL
    assert str(short) not in (out / "manifest.json").read_text()


@pytest.mark.parametrize("layout", ["older", "zip"])
@pytest.mark.parametrize("audio", [None, {"none": True}])
def test_one_torch_file_with_or_without_sound(tmp_path: Path, out: Path, layout: str, audio: dict[str, Any] | None) -> None:
    source = make_checkpoint(tmp_path / "source", audio=audio)
    expected = stored(source)
    as_torch(source, layout)
    convert_checkpoint(source, out)
    assert stored(out) == expected and verify_checkpoint(out, source).ok
    shutil.rmtree(out)
    (source / "pytorch_model.bin").rename(tmp_path / "weights.pt")
    convert_checkpoint(tmp_path / "weights.pt", out, config=source)
    assert stored(out) == expected


def test_single_safetensors_file(tmp_path: Path, out: Path) -> None:
    source = make_checkpoint(tmp_path / "source")
    convert_checkpoint(source / "model.safetensors", out, config=source)
    assert stored(out) == stored(source)
    with pytest.raises(UsageError, match="--config"):
        convert_checkpoint(source / "model.safetensors", tmp_path / "other")


@pytest.mark.parametrize("says_so", [True, False])
def test_tied_head(tmp_path: Path, out: Path, says_so: bool) -> None:
    """Tied in the file and in the config: stored once. Tied in the file alone: two equal tensors, as the config asks."""
    source = make_checkpoint(tmp_path / "source", tie_word_embeddings=says_so)
    manifest = convert_checkpoint(as_torch(source, "zip", tied=True), out).manifest
    found = stored(out)
    assert ("lm_head.weight" in found) != says_so
    assert manifest["dropped"] == (["lm_head.weight"] if says_so else [])
    if not says_so:
        assert found["lm_head.weight"] == found["transformer.wte.weight"]
    assert verify_checkpoint(out, source).ok


def test_known_buffers_are_left_out_and_named(tmp_path: Path, out: Path) -> None:
    extra = {"transformer.h.0.attn.masked_bias": np.zeros(1), "transformer.rotary_emb.inv_freq": np.ones(4)}
    source = make_checkpoint(tmp_path / "source", extra=extra)
    manifest = convert_checkpoint(source, out).manifest
    assert manifest["dropped"] == sorted(extra) and not extra.keys() & stored(out).keys()


def test_code_files_are_never_copied(tmp_path: Path, out: Path) -> None:
    source = make_checkpoint(tmp_path / "source")
    for name in ("modeling_qwen.py", "sitecustomize.py", "numpy.py", "README.md"):
        (source / name).write_text("raise SystemExit('this must not run')")
    convert_checkpoint(source, out)
    assert not [path.name for path in out.iterdir() if path.suffix in (".py", ".md")]


def test_safetensors_before_pickles(tmp_path: Path, out: Path) -> None:
    """A hostile .bin beside good safetensors is not opened; a broken safetensors never leads to it."""
    source = make_checkpoint(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n.")
    convert_checkpoint(source, out)
    with pytest.raises(UnsafeError):
        convert_checkpoint(source, tmp_path / "other", from_="pytorch")
    (source / "model.safetensors").write_bytes(b"\x80\x02cos\nsystem\n.")
    with pytest.raises(FormatError, match="pickle"):
        convert_checkpoint(source, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_not_finite_values_are_warned_about_and_kept(tmp_path: Path, out: Path) -> None:
    source = make_checkpoint(tmp_path / "source", extra={"transformer.ln_f.weight": np.array([np.nan, np.inf] + [1.0] * 22)})
    (warning,) = convert_checkpoint(source, out, weights="bfloat16").warnings
    assert "transformer.ln_f.weight" in warning and " 2 " in warning
    assert np.isnan(as_float64(stored(out)["transformer.ln_f.weight"])[0])
    assert not verify_checkpoint(out).ok


# --- Whisper -------------------------------------------------------------------------------------------------------------


def whisper_bits() -> dict[str, list[int]]:
    """The first four elements of each encoder tensor, as PyTorch reads them, by our names."""
    entries = json.loads((FOLDER / "whisper.json").read_text())
    return {"transformer.audio." + name[8:]: bits for name, bits in entries.items() if name.startswith("encoder.")}


@pytest.mark.parametrize("name", ["whisper.pt", "whisper_older.pt"])
def test_whisper_gives_an_encoder(out: Path, name: str) -> None:
    manifest = convert_checkpoint(FOLDER / name, out).manifest
    found = stored(out)
    assert {key: np.frombuffer(entry.data, "<i2")[:4].tolist() for key, entry in found.items()} == whisper_bits()
    config = json.loads((out / "config.json").read_text())
    assert config["audio"] == {"n_mels": 5, "n_ctx": 12, "n_state": 8, "n_head": 2, "n_layer": 2}
    assert manifest["dropped"] == ["decoder.ln.weight", "decoder.token_embedding.weight"]
    assert verify_checkpoint(out, FOLDER / "whisper.pt").ok
    with pytest.raises(UnsupportedError, match="model_type"):
        qwenaudio_np.load(out)


@pytest.mark.parametrize("audio", [None, {"none": True}])
def test_graft_onto_a_text_or_sound_model(tmp_path: Path, out: Path, audio: dict[str, Any] | None) -> None:
    source = make_checkpoint(tmp_path / "source", audio=audio, vocab_size=3784 if audio is None else 300)
    before = stored(source)
    manifest = convert_checkpoint(source, out, audio_from=FOLDER / "whisper.pt").manifest
    config, after = json.loads((out / "config.json").read_text()), stored(out)
    assert config["audio"] | {"n_state": 8, "n_layer": 2, "output_dim": 24, "audio_start_id": 3776, "avg_pool": True} == config["audio"]
    assert config["vocab_size"] == (3784 if audio is None else 3840)  # 256 ranks + 3522 special tokens, rounded up to 64
    for name, bits in whisper_bits().items():
        assert np.frombuffer(after[name].data, "<i2")[:4].tolist() == bits
    for name, entry in before.items():
        if "audio" not in name:
            assert after[name].data.startswith(entry.data) and after[name].shape[1:] == entry.shape[1:]
    assert set(manifest["fresh"]) == {
        f"transformer.audio.{n}" for n in ("proj.weight", "proj.bias", "audio_bos_eos_token.weight")
    }
    assert {name: entry.shape for name, entry in after.items()} == {name: list(shape) for name, shape in shapes(config)}
    assert verify_checkpoint(out, source).ok and verify_checkpoint(out, FOLDER / "whisper.pt").ok
    assert qwenaudio_np.load(out, backend="reference").config.audio is not None


def test_graft_is_seeded(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", audio={"none": True})
    found = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        convert_checkpoint(source, tmp_path / name, audio_from=FOLDER / "whisper.pt", seed=seed)
        found[name] = stored(tmp_path / name)
    assert found["a"] == found["b"]
    changed = {name for name in found["a"] if found["a"][name] != found["c"][name]}
    assert changed == {"transformer.audio.proj.weight", "transformer.audio.audio_bos_eos_token.weight"}
    values = as_float64(found["a"]["transformer.audio.proj.weight"])
    assert len(values) == 24 * 8 and np.abs(values).max() <= 0.5 and 0.2 < values.std() < 0.35  # uniform within 2^-1: fan-in 8
    assert not as_float64(found["a"]["transformer.audio.proj.bias"]).any()


def test_a_model_for_another_width_of_vocabulary(tmp_path: Path, out: Path) -> None:
    source = make_checkpoint(tmp_path / "source", audio={"audio_start_id": 3000})
    with pytest.raises(MismatchError, match="3776"):
        convert_checkpoint(source, out, audio_from=FOLDER / "whisper.pt")
