"""The verb trace: a file with the tensors of the original, in the type that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

import qwenaudio_np
from tests.cli_tools import CLIP, GOLDEN, Outcome, Run, files_of, request, runner, tracing


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safetensors.safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in json.loads(file.metadata()["order"])}, file.metadata()


def test_a_trace_holds_the_tensors_of_the_original(run: Run, tmp_path: Path) -> None:
    folder, target = GOLDEN / "tiny" / "cases" / "asr_tone", tmp_path / "trace.safetensors"
    case = json.loads((folder / "case.json").read_text())
    (tmp_path / "ids.json").write_text(json.dumps(case["input_ids"]))
    ids = ["--ids", tmp_path / "ids.json", "-i", CLIP]
    assert run(*tracing(*ids, "--steps", 12, "--dtype", "float64", "-o", target)) == Outcome(0, "", "")
    tensors, metadata = read(target)
    expected = load_file(folder / "expected.safetensors")
    assert tensors["decoder.logits"].dtype == np.float64 and len(tensors["decoder.logits"]) == len(case["input_ids"])
    for name in set(expected) - {"decoder.logits_f64"}:
        wanted, got = expected[name], tensors[name]
        error = np.abs(got[-4:] - wanted).max() if name == "decoder.logits" else np.abs(got - wanted).max()
        assert error < 5e-4 * np.sqrt(np.mean(np.square(wanted, dtype=np.float64))), name
    assert tensors["generate.ids"].tolist() == case["greedy_ids"] and tensors["prompt.ids"].tolist() == case["input_ids"]
    assert set(tensors) == set(load_file(target))
    assert (metadata["backend"], metadata["weights"], metadata["dtype"]) == ("reference", "float32", "float64")
    assert (metadata["qwenaudio_np"], metadata["numpy"]) == (qwenaudio_np.__version__, np.__version__)
    assert len(metadata["config_sha256"]) == 64
    assert sorted(files_of(tmp_path)) == ["ids.json", "trace.safetensors"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_with_keys_and_values_in_bfloat16(run: Run, tmp_path: Path, dtype: str) -> None:
    words = ["-p", "hello", "-i", CLIP, "--dtype", dtype]
    assert run(*tracing(*words, "-o", tmp_path / "full")).status == 0
    assert run(*tracing(*words, "--kv", "bfloat16", "-o", tmp_path / "half")).status == 0
    (full, about_full), (half, about_half) = read(tmp_path / "full"), read(tmp_path / "half")
    assert (about_full["kv"], about_half["kv"]) == (dtype, "bfloat16")
    for name in full:
        assert half[name].dtype == full[name].dtype
    first = [half["decoder.h.0.key_cache"], full["decoder.h.0.key_cache"]]  # nothing was rounded before these
    assert not (first[0].astype(np.float32).view(np.uint32) & 0xFFFF).any()
    np.testing.assert_allclose(*first, rtol=2**-8)
    assert np.abs(half["decoder.logits"] - full["decoder.logits"]).max() > 0


def test_a_trace_of_a_prompt_is_that_of_its_ids(run: Run, tmp_path: Path) -> None:
    prompt = json.loads(run(*request("-p", "hello", "-i", CLIP, "--json")).out)["prompt_ids"]
    (tmp_path / "ids.json").write_text(json.dumps(prompt))
    assert run(*tracing("-p", "hello", "-i", CLIP, "-o", tmp_path / "a")).status == 0
    assert run(*tracing("--ids", tmp_path / "ids.json", "-i", CLIP, "-o", tmp_path / "b")).status == 0
    (first, about_first), (second, about_second) = read(tmp_path / "a"), read(tmp_path / "b")
    assert about_first == about_second and list(first) == list(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)
