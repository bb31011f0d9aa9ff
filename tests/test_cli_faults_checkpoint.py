"""Checkpoints that are broken, or cannot do what is asked: one line on stderr about it, the right status, nothing new on disk."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.checkpoint_tools import FIRST, copy_of_tiny
from tests.cli_tools import CLIP, Run, assert_refused, nothing_written, request, runner
from tests.make_checkpoint import make_checkpoint


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


INDEX = "model.safetensors.index.json"


def edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change fields of a JSON file; `a__b` is field b of field a."""

    def edit(folder: Path) -> None:
        fields = json.loads((folder / name).read_text())
        for path, value in changes.items():
            *outer, last = path.split("__")
            inner = fields
            for key in outer:
                inner = inner[key]
            inner[last] = value
        (folder / name).write_text(json.dumps(fields))

    return edit


def edit_index(tensor: str, file: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"][tensor] = file
        (folder / INDEX).write_text(json.dumps(index))

    return edit


def edit_tensors(change: Callable[[dict[str, np.ndarray]], object], listed: str | None = None) -> Callable[[Path], None]:
    """Change the tensors of the first shard; `listed` is added to the index."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / FIRST)
        change(tensors)
        save_file(tensors, folder / FIRST)
        if listed:
            edit_index(listed, FIRST)(folder)

    return edit


def edit_vocabulary(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "qwen.tiktoken"
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return edit


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, end: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:end])


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


BIAS = "transformer.audio.blocks.0.attn.query.bias"
BYTE_A = base64.b64encode(b"a")

BROKEN_CHECKPOINT: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no folder": (shutil.rmtree, ("config.json", "no such file")),
    "no config": (remove("config.json"), ("config.json", "no such file")),
    "config is no JSON": (write("config.json", b"{"), ("config.json", "not valid JSON")),
    "config is a list": (write("config.json", b"[]"), ("config.json", "list", "object")),
    "config is a web page": (write("config.json", b"<!DOCTYPE html>"), ("config.json", "HTML")),
    "config is binary": (write("config.json", b"\xff\xfe"), ("config.json", "UTF-8")),
    "config nests without end": (write("config.json", b"[" * 100_000), ("config.json", "deeply")),
    "config of another model": (edit_json("config.json", model_type="llama"), ("model_type", "'llama'", "qwen")),
    "config with no layers": (edit_json("config.json", num_hidden_layers=0), ("num_hidden_layers is 0,",)),
    "config with a billion layers": (edit_json("config.json", num_hidden_layers=10**9), ("num_hidden_layers",)),
    "heads that do not divide": (edit_json("config.json", num_attention_heads=5), ("hidden_size 64", "num_attention_heads 5")),
    "generation config is no JSON": (write("generation_config.json", b"x"), ("generation_config.json", "not valid JSON")),
    "no vocabulary": (remove("qwen.tiktoken"), ("qwen.tiktoken", "no such file")),
    "bad line in the vocabulary": (edit_vocabulary(lambda lines: [*lines[:7], b"!!! x\n", *lines[8:]]), ("qwen.tiktoken", "8")),
    "gap in the vocabulary": (edit_vocabulary(lambda lines: [*lines[:500], *lines[501:]]), ("qwen.tiktoken", "500")),
    "byte missing": (
        edit_vocabulary(lambda lines: [b"YWFhYWFhYWFh" + line[4:] if line.startswith(BYTE_A + b" ") else line for line in lines]),
        ("qwen.tiktoken", "byte"),
    ),
    "vocabulary cut": (edit_vocabulary(lambda lines: lines[:900]), ("audio_start_id 4520", "900 ranks", "4420")),
    "audio_start_id that disagrees": (edit_json("config.json", audio__audio_start_id=4519), ("audio_start_id 4519", "1000 ranks", "4520")),
    "no weights": (lambda folder: [path.unlink() for path in folder.glob("model*")], ("neither", INDEX)),
    "index is no JSON": (write(INDEX, b"{"), (INDEX, "not valid JSON")),
    "index without map": (write(INDEX, b"{}"), (INDEX, "weight_map")),
    "index points up": (edit_index("lm_head.weight", "../x.safetensors"), (INDEX, "'../x.safetensors'", "plain file name")),
    "index points to a device": (edit_index("lm_head.weight", "/dev/zero"), (INDEX, "'/dev/zero'")),
    "index points to a pickle": (edit_index("lm_head.weight", "model.bin"), (INDEX, "'model.bin'")),
    "index names a tensor that is not there": (edit_index("transformer.h.9.ln_1.weight", FIRST), ("transformer.h.9.ln_1.weight",)),
    "shard missing": (remove(FIRST), (FIRST, "fetch")),
    "shard empty": (write(FIRST, b""), (FIRST, "0 bytes")),
    "shard cut in its header": (cut(FIRST, 100), (FIRST,)),
    "shard cut in its data": (cut(FIRST, -1), (FIRST,)),
    "shard is a git-lfs pointer": (write(FIRST, b"version https://git-lfs.github.com/spec/v1\n"), (FIRST, "git-lfs")),
    "shard is a pipe": (lambda folder: [(folder / FIRST).unlink(), os.mkfifo(folder / FIRST)], (FIRST, "regular file")),
    "shard with a huge header": (write(FIRST, struct.pack("<Q", 1 << 62) + b"{}"), (FIRST,)),
    "tensor missing": (edit_tensors(lambda tensors: tensors.pop(BIAS)), (BIAS,)),
    "tensor too many": (edit_tensors(lambda tensors: tensors.update(more=np.zeros(3, np.float32)), "more"), ("'more'", "not expected")),
    "tensor of another shape": (edit_tensors(lambda tensors: tensors.update({BIAS: np.zeros(7, np.float32)})), (BIAS, "[7]", "[48]")),
    "tensor of whole numbers": (edit_tensors(lambda tensors: tensors.update({BIAS: np.zeros(48, np.int32)})), (BIAS, "I32", "F32")),
    "config of another size": (edit_json("config.json", intermediate_size=386), ("mlp", "config.json")),
    "weights that are not numbers": (
        edit_tensors(lambda tensors: tensors.update({BIAS: np.full(48, np.nan, np.float32)})),
        ("non-finite",),
    ),
}


@pytest.mark.parametrize("name", BROKEN_CHECKPOINT)
def test_broken_checkpoint(name: str, run: Run, tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    break_it, fragments = BROKEN_CHECKPOINT[name]
    break_it(folder)
    with nothing_written(tmp_path):
        assert_refused(run(*request("-p", "x", "-i", CLIP, "-o", tmp_path / "answer", model=folder)), 1, *fragments)


@pytest.mark.parametrize("name", ["no folder", "config is no JSON", "shard missing", "shard cut in its header", "index points up"])
def test_info_refuses_them_too(name: str, run: Run, tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    break_it, fragments = BROKEN_CHECKPOINT[name]
    break_it(folder)
    assert_refused(run("info", folder), 1, *fragments)


@pytest.fixture(scope="module")
def text_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("text"), audio={"none": True}, vocab_size=500)


def test_a_text_only_checkpoint_answers_text_and_refuses_sound(text_only: Path, run: Run) -> None:
    assert run(*request("-p", "hello", model=text_only)).status == 0
    assert "none (text only)" in run("info", text_only).out
    assert json.loads(run("info", text_only, "--json").out)["encoder"] is None
    assert_refused(run(*request("-p", "hello", "-i", CLIP, model=text_only)), 2, "text-only", "--input")
    assert_refused(run(*request("--task", "asr", "-i", CLIP, model=text_only)), 2, "text-only")
