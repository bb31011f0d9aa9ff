"""The verbs that make, check and describe checkpoints, from random-checkpoint to info: status, stdout and stderr."""

from __future__ import annotations

import json
import shutil
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest
import safetensors

from qwenaudio_np.convert import download as download_module
from qwenaudio_np.convert.converter import SHARD_BYTES
from qwenaudio_np.convert.download import Downloaded
from qwenaudio_np.convert.weight_source import KINDS
from qwenaudio_np.convert.weight_types import WEIGHT_TYPES
from qwenaudio_np.options import byte_size
from qwenaudio_np.parser import parse
from tests.cli_tools import CLIP, TINY, Outcome, Run, assert_refused, nothing_written, request, runner
from tests.make_checkpoint import make_checkpoint, read_weights
from tests.torch_fixtures import FOLDER


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture()
def source(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "source")


def test_convert_then_verify(run: Run, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("convert", source, out, "--weights", "bfloat16", "--shard_size", "100kB") == (0, "", "")
    assert len(list(out.glob("*.safetensors"))) > 1
    status, printed, errors = run("verify", out)
    assert (status, errors) == (0, "") and printed.endswith("hashes checked\n") and " is good: " in printed
    status, printed, _ = run("verify", out, "--against", source)
    lines = printed.splitlines()
    assert status == 0 and lines[-1].endswith(f"{len(read_weights(source))} compared with the source")
    assert any(line.startswith("lm_head.weight: differs by up to ") for line in lines)
    status, printed, _ = run("info", out)
    assert status == 0 and "weights 'bfloat16', from:\n  'model.safetensors'" in printed
    (out / "manifest.json").write_text('{"sources": [1], "options": {}}')
    assert run("info", out).status == 1


def test_a_random_checkpoint_answers(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    made = run("random_checkpoint", folder, "--size", "tiny", "--seed", 1)
    assert made == Outcome(0, "", "")
    assert run(*request("-i", CLIP, "-p", "hello", model=folder)).status == 0
    with nothing_written(tmp_path):
        assert_refused(run("random-checkpoint", folder), 2, "already holds a checkpoint", "--force")
    assert run("random-checkpoint", folder, "--seed", 1, "--force", "--verbose").status == 0


def test_info_for_people_and_programs(run: Run) -> None:
    told = run("info", TINY)
    report = json.loads(run("info", TINY, "--json").out)
    assert told.status == 0 and told.err == "" and "3 x float32" not in told.out
    with safetensors.safe_open(TINY / "model-00001-of-00002.safetensors", "numpy") as first:
        assert f"{len(first.keys())} x float32" in told.out
    count = sum(report["parameters"].values())
    assert report["weight_bytes"] == 4 * count and f"{count:,} parameters" in told.out
    assert report["memory_bytes"]["needed_by_positions"].keys() == {"2048", "8192"}
    assert report["decoder"]["hidden_size"] == 64 and report["encoder"]["n_state"] == 48


def test_info_counts_keys_and_values_as_they_are_kept(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("convert", TINY, out, "--weights", "int8").status == 0
    floats, quantised = (json.loads(run("info", folder, "--json").out)["memory_bytes"] for folder in (TINY, out))
    assert floats["cache_per_position"] == 2 * quantised["cache_per_position"] == 2 * 3 * 64 * 4  # keys and values of 3 layers


def test_info_of_an_encoder_alone(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("convert", FOLDER / "whisper.pt", out, "--weights", "int8").status == 0
    status, printed, errors = run("info", out)
    assert (status, errors) == (0, "") and "an encoder without a decoder" in printed and '"n_layer": 2' in printed
    assert "weights 'int8', from:\n  'whisper.pt'" in printed
    report = json.loads(run("info", out, "--json").out)
    assert report["encoder"]["n_state"] == 8 and report["converted"]["sources"][0]["name"] == "whisper.pt"
    status, _, errors = run(*request("-p", "hello", model=out))
    assert status == 1 and "an encoder without a decoder" in errors and "--audio-from" in errors and errors.count("\n") == 1


def test_verify_says_what_is_wrong(run: Run, source: Path) -> None:
    (source / "config.json").write_text("{}")
    status, printed, _ = run("verify", source)
    assert status == 1 and printed.startswith("wrong: ") and "is not good" in printed


def test_progress_and_warnings_go_to_stderr(run: Run, tmp_path: Path) -> None:
    import numpy as np

    odd = make_checkpoint(tmp_path / "odd", extra={"transformer.ln_f.weight": np.full(24, np.inf)})
    status, printed, errors = run("convert", odd, tmp_path / "out", "-v")
    assert status == 0 and printed == "" and "warning: tensor 'transformer.ln_f.weight' holds 24 values" in errors and "GB" in errors


def test_whisper_and_graft(run: Run, tmp_path: Path) -> None:
    text = make_checkpoint(tmp_path / "text", audio={"none": True})
    assert run("convert", FOLDER / "whisper.pt", tmp_path / "encoder", "--from", "whisper").status == 0
    assert run("convert", text, tmp_path / "both", "--audio-from", FOLDER / "whisper.pt", "--seed", "3").status == 0
    assert run("verify", tmp_path / "both", "--against", text).status == 0


def test_a_hostile_file_is_one_line(run: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    status, printed, errors = run("convert", tmp_path / "model.bin", tmp_path / "out", "--config", source)
    assert (status, printed) == (1, "") and errors.startswith("error: ") and errors.count("\n") == 1
    shutil.copy(FOLDER / "whole_module.bin", tmp_path / "model.bin")
    status, printed, errors = run("convert", tmp_path / "model.bin", tmp_path / "out", "--config", source)
    assert (status, printed) == (1, "") and "torch.nn.modules.linear.Linear" in errors and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", ["convert a", "convert a b --weights int3", "convert a b --from zip", "convert a b --shard-size x", "verify", "download a"]
)
def test_wrong_usage(run: Run, words: str) -> None:
    status, printed, errors = run(*words.split())
    assert (status, printed) == (2, "") and errors.startswith("error: ") and errors.count("\n") == 1


def test_download_shows_its_steps(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(repository: str, folder: str, *, revision: str | None, progress: Any) -> Downloaded:
        assert (repository, revision) == ("a/b", "v1")
        progress("config.json", 1, 2)
        return Downloaded("c0ffee", ("config.json",))

    monkeypatch.setattr(download_module, "download", fetched)
    status, printed, errors = run("download", "a/b", tmp_path / "out", "--revision", "v1", "-v")
    assert (status, printed) == (0, "") and "1 of 2: config.json" in errors and "c0ffee" in errors


def test_download_of_a_bad_name(run: Run, tmp_path: Path) -> None:
    status, _, errors = run("download", "../x", tmp_path / "out")
    assert status == 2 and errors.startswith("error: '../x' is not the name of a repository")


def test_options_offer_what_the_converter_knows() -> None:
    for kind in KINDS:
        assert parse(["convert", "a", "b", "--from", kind]).from_ == kind
    for weights in WEIGHT_TYPES:
        assert parse(["convert", "a", "b", "--weights", weights]).weights == weights
    assert parse(["convert", "a", "b"]).shard_size == SHARD_BYTES


@pytest.mark.parametrize(
    ("text", "value"), [("2GB", 2 * 10**9), ("1.5 gb", 15 * 10**8), ("500MB", 5 * 10**8), ("64kB", 64000), ("7", 7), ("7B", 7)]
)
def test_sizes(text: str, value: int) -> None:
    assert byte_size(text) == value


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "2GiB", "9" * 50, "1\n", "\u0661GB"])
def test_other_sizes(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="500MB"):
        byte_size(text)
