"""Verification finds every change: a byte, a name, a shape, a value, a missing file; and says how far values are from their source."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np import load, weight_plan
from qwenaudio_np.convert import source_file, weight_types
from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.convert.verify import verify_checkpoint
from qwenaudio_np.errors import UnsupportedError, UsageError
from tests.conversion_tools import as_torch
from tests.make_checkpoint import make_checkpoint, read_weights
from tests.torch_fixtures import FOLDER

SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture()
def source(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "source")


@pytest.fixture()
def out(tmp_path: Path, source: Path) -> Path:
    convert_checkpoint(source, tmp_path / "out")
    return tmp_path / "out"


def test_a_good_folder(source: Path, out: Path) -> None:
    report = verify_checkpoint(out, source)
    assert report.ok and report.problems == [] and report.differences == []
    assert report.tensors == report.compared == len(read_weights(source)) and report.files == 1 and report.hashed


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_tied_head_of_its_own_in_pieces(tmp_path: Path, weights: str) -> None:
    """The source stores the head although it is tied; the converter keeps what is there, and the loader reads it."""
    source = make_checkpoint(tmp_path / "source", tie_word_embeddings=True)
    table = read_weights(source)["transformer.wte.weight"]
    source = make_checkpoint(tmp_path / "both", tie_word_embeddings=True, extra={"lm_head.weight": table + 0.0})
    convert_checkpoint(source, tmp_path / "out", weights=weights)
    assert load(tmp_path / "out").weights
    assert verify_checkpoint(tmp_path / "out", source).problems == []


def test_pieces_of_another_type_are_refused_as_the_loader_refuses_them(tmp_path: Path, source: Path) -> None:
    convert_checkpoint(source, tmp_path / "out", weights="int8")
    (tmp_path / "out" / "manifest.json").unlink()
    path = tmp_path / "out" / SHARD
    data = path.read_bytes()
    other = re.sub(rb'(\.scales": ?\{"dtype": ?)"BF16"', rb'\1"F16" ', data, count=1)
    assert other != data and len(other) == len(data)
    path.write_bytes(other)
    with pytest.raises(UnsupportedError, match="BF16"):
        load(tmp_path / "out")
    assert any("BF16" in problem for problem in verify_checkpoint(tmp_path / "out").problems)


def test_a_folder_without_manifest(source: Path) -> None:
    report = verify_checkpoint(source)
    assert report.ok and not report.hashed and report.compared == 0


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def edited(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    fields = json.loads(path.read_text())
    edit(fields)
    path.write_text(json.dumps(fields))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a bit of the weights": (lambda f: flipped(f / SHARD, -1), "lm_head.weight"),
    "a bit of the vocabulary": (lambda f: flipped(f / "qwen.tiktoken", 0), "qwen.tiktoken"),
    "the vocabulary missing": (lambda f: (f / "qwen.tiktoken").unlink(), "qwen.tiktoken"),
    "a bit of the padding": (lambda f: flipped(f / SHARD, 8), "{"),
    "the config": (lambda f: edited(f / "config.json", lambda c: c.update(extra=1)), "config.json"),
    "the config's layers": (lambda f: edited(f / "config.json", lambda c: c.update(num_hidden_layers=3)), "transformer.h.2.ln_1.weight"),
    "the config missing": (lambda f: (f / "config.json").unlink(), "config.json"),
    "the config damaged": (lambda f: (f / "config.json").write_text("{"), "JSON"),
    "the shard cut": (lambda f: os.truncate(f / SHARD, 9000), "cut short"),
    "the shard missing": (lambda f: (f / SHARD).unlink(), "no such file"),
    "the index missing": (lambda f: (f / "model.safetensors.index.json").unlink(), "index"),
    "the manifest damaged": (lambda f: (f / "manifest.json").write_text("{}"), "manifest.json"),
    "the manifest of another format": (lambda f: edited(f / "manifest.json", lambda m: m.update(format=2)), "format"),
    "the manifest's files": (lambda f: edited(f / "manifest.json", lambda m: m.update(files=[])), "files"),
    "the manifest with a foreign path": (lambda f: edited(f / "manifest.json", lambda m: m["files"].update({"../x": {}})), "../x"),
    "the manifest with a name that no system has": (
        lambda f: edited(f / "manifest.json", lambda m: m["files"].update({"x" * 300: {"bytes": 1}})),
        "x" * 300,
    ),
    "a tensor's hash": (lambda f: edited(f / "manifest.json", lambda m: m["tensors"]["lm_head.weight"].update(sha256="")), "lm_head"),
    "a tensor too many in the manifest": (lambda f: edited(f / "manifest.json", lambda m: m["tensors"].update(x={})), "tensor 'x'"),
    "the config not listed": (lambda f: edited(f / "manifest.json", lambda m: m["files"].pop("config.json")), "config.json"),
    "the vocabulary not listed": (lambda f: edited(f / "manifest.json", lambda m: m["files"].pop("qwen.tiktoken")), "qwen.tiktoken"),
    "no manifest and no vocabulary": (lambda f: [(f / n).unlink() for n in ("manifest.json", "qwen.tiktoken")], "qwen.tiktoken"),
    "a shard not listed": (lambda f: edited(f / "manifest.json", lambda m: m["files"].pop(SHARD)), SHARD),
}


@pytest.mark.parametrize("case", FAULTS)
def test_every_fault_is_named(out: Path, case: str) -> None:
    spoil, named = FAULTS[case]
    spoil(out)
    report = verify_checkpoint(out)
    assert not report.ok and named in " ".join(report.problems)
    assert all(problem.isprintable() for problem in report.problems)


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", extra={"transformer.ln_f.weight": np.array([np.nan] + [1.0] * 23)})
    (problem,) = verify_checkpoint(folder).problems
    assert "transformer.ln_f.weight" in problem and "NaN" in problem


@pytest.mark.parametrize("piece", [64, 1 << 20])
def test_difference_from_the_source_is_measured(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """float32 rounded to float16: the largest and mean difference of each tensor, whatever the blocks in which it is read."""
    monkeypatch.setattr(source_file, "PIECE_BYTES", piece)
    convert_checkpoint(source, tmp_path / "half", weights="float16")
    report = verify_checkpoint(tmp_path / "half", source)
    assert report.ok
    before, after = read_weights(source), read_weights(tmp_path / "half")
    found = {difference.name: difference for difference in report.differences}
    for name, values in before.items():
        error = np.abs(values - after[name])
        if error.max():
            assert found[name].largest == error.max()
            assert found[name].mean == pytest.approx(error.mean(), rel=1e-12)
    assert len(found) == sum(bool(np.abs(values - after[name]).max()) for name, values in before.items())


def test_another_source_is_noticed(out: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", seed=1)
    report = verify_checkpoint(out, other)
    assert len(report.problems) == report.compared and "is not its source" in report.problems[0]
    wider = make_checkpoint(tmp_path / "wider", num_hidden_layers=3)
    lost = {problem.split("'")[1] for problem in verify_checkpoint(out, wider).problems if "is not in the checkpoint" in problem}
    assert lost == read_weights(wider).keys() - read_weights(out).keys() and any(".h.2." in name for name in lost)
    assert "is not in" in verify_checkpoint(out, make_checkpoint(tmp_path / "text", audio={"none": True})).problems[-1]
    deaf = make_checkpoint(tmp_path / "deaf", audio={"none": True})
    assert "no tensor in common" in verify_checkpoint(deaf, FOLDER / "whisper.pt").problems[0]


def test_a_value_off_by_one_bit_against_the_source(source: Path, out: Path) -> None:
    """Without the manifest's hashes, the comparison alone must see it."""
    (out / "manifest.json").unlink()
    flipped(out / SHARD, -4)
    report = verify_checkpoint(out, source)
    assert len(report.problems) == 1 and "lm_head.weight" in report.problems[0] and verify_checkpoint(out).ok


def test_encoder_folder(tmp_path: Path) -> None:
    convert_checkpoint(FOLDER / "whisper.pt", tmp_path / "encoder")
    report = verify_checkpoint(tmp_path / "encoder", FOLDER / "whisper_older.pt")
    assert report.ok and report.compared == report.tensors
    for edit in (lambda c: c["audio"].update(n_layer=3), lambda c: c["audio"].pop("n_ctx"), lambda c: c.update(audio=[])):
        shutil.copytree(tmp_path / "encoder", tmp_path / "bad")
        edited(tmp_path / "bad" / "config.json", edit)
        assert not verify_checkpoint(tmp_path / "bad").ok
        shutil.rmtree(tmp_path / "bad")


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantised_encoder(tmp_path: Path, weights: str) -> None:
    convert_checkpoint(FOLDER / "whisper.pt", tmp_path / "encoder", weights=weights)
    report = verify_checkpoint(tmp_path / "encoder", FOLDER / "whisper.pt")
    assert report.ok and report.hashed and report.compared < report.tensors
    edited(tmp_path / "encoder" / "config.json", lambda c: c["audio"].update(n_state=16, n_head=2))
    assert not verify_checkpoint(tmp_path / "encoder").ok


def test_what_a_conversion_leaves_out_is_not_missed(tmp_path: Path) -> None:
    """A head that is tied, known buffers, Whisper's decoder and, after a graft, an encoder; with the manifest and without."""
    tied = as_torch(make_checkpoint(tmp_path / "tied", tie_word_embeddings=True), "zip", tied=True)
    buffers = make_checkpoint(tmp_path / "buffers", extra={"transformer.h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32)})
    for name, source, options in (("a", tied, {}), ("b", buffers, {}), ("c", buffers, {"audio_from": FOLDER / "whisper.pt"})):
        manifest = convert_checkpoint(source, tmp_path / name, **options).manifest  # type: ignore[arg-type]
        assert manifest["dropped"] and verify_checkpoint(tmp_path / name, source).ok
    for dropped in (5, [[]], [{}]):
        edited(tmp_path / "a" / "manifest.json", lambda m, dropped=dropped: m.update(dropped=dropped))  # type: ignore[misc]
        assert verify_checkpoint(tmp_path / "a", tied).ok
    (tmp_path / "a" / "manifest.json").unlink()
    assert verify_checkpoint(tmp_path / "a", tied).ok


def test_a_source_that_is_not_there(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        verify_checkpoint(out, tmp_path / "nothing")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        verify_checkpoint(tmp_path / "nothing")
    for options in ({"folder": ""}, {"folder": tmp_path, "against": ""}):
        with pytest.raises(UsageError, match="empty name"):
            verify_checkpoint(**options)  # type: ignore[arg-type]


def test_progress_ends_at_its_total(source: Path, out: Path) -> None:
    steps: list[tuple[int, int]] = []
    verify_checkpoint(out, source, progress=lambda done, total: steps.append((done, total)))
    assert steps and all(0 < done <= total for done, total in steps)
    assert steps[-1][0] > 0.98 * steps[-1][1]  # headers are read, not counted


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantised_folders(tmp_path: Path, source: Path, weights: str) -> None:
    folder = tmp_path / weights
    convert_checkpoint(source, folder, weights=weights)
    report = verify_checkpoint(folder, source)
    assert report.ok, report.problems
    assert report.compared == len(read_weights(source))
    told = {difference.name: difference for difference in report.differences}
    matrix = "transformer.h.0.mlp.w1.weight"
    spread = float(np.abs(read_weights(source)[matrix]).max())
    assert 0 < told[matrix].mean < told[matrix].largest < spread * (0.01 if weights == "int8" else 0.2)
    assert "transformer.ln_f.weight" not in told  # kept as a float


def test_a_quantised_folder_of_another_source(tmp_path: Path, source: Path) -> None:
    convert_checkpoint(source, tmp_path / "int8", weights="int8")
    other = make_checkpoint(tmp_path / "other", seed=9)
    problems = verify_checkpoint(tmp_path / "int8", other).problems
    assert any("transformer.h.0.mlp.w1.weight' is not its source quantised to 8 bits" in problem for problem in problems)


def test_a_changed_code_is_found_without_a_source(tmp_path: Path, source: Path) -> None:
    convert_checkpoint(source, tmp_path / "int4", weights="int4")
    shard = tmp_path / "int4" / SHARD
    flipped(shard, shard.stat().st_size // 2)
    assert not verify_checkpoint(tmp_path / "int4").ok


def test_a_quantised_tensor_is_read_once(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    quantise = weight_types.quantise
    monkeypatch.setattr(weight_types, "quantise", lambda rows, bits: (made.append(rows.size), quantise(rows, bits))[1])
    convert_checkpoint(source, tmp_path / "int4", weights="int4")
    matrices = [value.size for name, value in read_weights(source).items() if weight_plan.bits_of(name, "int4")]
    assert sum(made) == sum(matrices)
