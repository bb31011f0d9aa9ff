"""Checkpoints with made-up weights: whole or not at all, the same bytes every time, and good enough to decode with."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from qwenaudio_np import ops
from qwenaudio_np.cache import KVCache
from qwenaudio_np.checkpoint import checkpoint_summary, load_weights
from qwenaudio_np.config import load_config, parse_config
from qwenaudio_np.convert.file_lock import locked
from qwenaudio_np.convert.random_checkpoint import PUBLISHED_RANKS, SIZES, config_fields, random_vocabulary, write_random_checkpoint
from qwenaudio_np.decoder import decode
from qwenaudio_np.errors import ResourceError, UsageError
from qwenaudio_np.names import expected_tensors
from qwenaudio_np.tokenizer import Tokenizer

DTYPES = ("bfloat16", "float16", "float32")
SPAN = 1 << 64


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny checkpoint in every type, seed 0."""
    parent = tmp_path_factory.mktemp("tiny")
    for dtype in DTYPES:
        write_random_checkpoint(parent / dtype, "tiny", seed=0, dtype=dtype)
    return {dtype: parent / dtype for dtype in DTYPES}


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    """Every tensor as the reference library reads it: dtype, shape, data."""
    return {name: item for path in sorted(folder.glob("*.safetensors")) for name, item in safetensors.deserialize(path.read_bytes())}


PINNED = {
    "model-00001-of-00002.safetensors": "1943e801f66809881309be91cf2d21ba9717ed47d63b7e85231778ec7284e9e8",
    "model-00002-of-00002.safetensors": "6e921914ee4035ef95c700bfd2c861c654fd6e54b58fb8667b1526412f5d3a00",
}


def test_bytes_are_pinned(tiny: dict[str, Path]) -> None:
    """Other implementations rely on these bytes: a changed hash is a changed format."""
    found = {name: hashlib.sha256((tiny["bfloat16"] / name).read_bytes()).hexdigest() for name in PINNED}
    assert found == PINNED


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_loads(tiny: dict[str, Path], dtype: str) -> None:
    folder = tiny[dtype]
    config = load_config(folder)
    weights = load_weights(folder, config)
    assert weights.label == dtype
    truth = stored(folder)
    assert set(weights) == truth.keys() == expected_tensors(config).keys()
    for name, array in weights.items():
        assert array.tobytes() == bytes(truth[name]["data"])
    for path in folder.glob("*.safetensors"):  # the data of every file begin at a multiple of 64 bytes
        assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 64 == 0
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == weights.nbytes == checkpoint_summary(folder, load_config(folder)).weight_bytes
    assert index["weight_map"] == {name: path.name for path in folder.glob("*.safetensors") for name, _ in stored_names(path)}
    assert len(set(index["weight_map"].values())) > 1


def stored_names(path: Path) -> list[tuple[str, Any]]:
    return list(safetensors.deserialize(path.read_bytes()))


def test_tiny_vocabulary_agrees_with_its_config(tiny: dict[str, Path]) -> None:
    tokenizer, config = Tokenizer.from_file(tiny["bfloat16"] / "qwen.tiktoken"), load_config(tiny["bfloat16"])
    assert config.audio is not None
    assert tokenizer.special_ids["<audio>"] == config.audio.audio_start_id
    assert tokenizer.n_vocab <= config.text.vocab_size and config.text.vocab_size % 64 == 0
    for text in ("what does the person say?", "早上好", "zażółć 🎵"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("The speaker says")) < len("The speaker says") // 2  # the merges are used


def test_large_vocabulary_has_the_published_ids() -> None:
    tokens = random_vocabulary(PUBLISHED_RANKS)
    assert len(tokens) == len(set(tokens)) == 151_643
    assert tokens[:512] == random_vocabulary(512)
    assert tokens[512] == b"\xff\x80\x80\x80" and tokens[513] == b"\xff\x80\x80\x81"
    assert all(token[0] == 0xFF and len(token) == 4 and set(token[1:]) <= set(range(0x80, 0xC0)) for token in tokens[512:])
    for size in ("layer", "full"):
        fields = config_fields(SIZES[size])
        assert (fields["audio"]["audio_start_id"], fields["vocab_size"]) == (155_163, 155_947)


def test_sizes_of_the_published_model() -> None:
    for size, layers, billions in (("full", 32, 8.396), ("layer", 2, 1.734)):
        config = parse_config(config_fields(SIZES[size]))
        assert config.text.num_hidden_layers == layers == (config.audio and config.audio.n_layer)
        assert sum(map(math.prod, expected_tensors(config).values())) / 1e9 == pytest.approx(billions, abs=1e-3)


def test_best_tokens_are_well_apart(tiny: dict[str, Path]) -> None:
    """Greedy decoding of tiny never comes close to a tie, and the text can be read: learned tokens alone win."""
    config = load_config(tiny["bfloat16"])
    weights = load_weights(tiny["bfloat16"], config)
    table, cache, chosen = weights["transformer.wte.weight"], KVCache(config.text), []
    x = ops.embedding(table, np.arange(65, 91), np.dtype(np.float32))
    for _ in range(24):
        logits = ops.linear(decode(x, cache, weights, config.text, ops)[-1:], weights["lm_head.weight"])[0]
        second, best = np.sort(logits)[-2:]
        assert best - second > 1e-3 * np.sqrt(np.mean(np.square(logits)))
        chosen.append(int(logits.argmax()))
        x = ops.embedding(table, np.array(chosen[-1:]), np.dtype(np.float32))
    assert all(256 <= token < 512 for token in chosen)
    assert len(set(chosen)) > 8


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_seed_same_bytes_other_seed_other_bytes(tiny: dict[str, Path], tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "again", seed=0)
    write_random_checkpoint(tmp_path / "other", seed=1)
    assert snapshot(tmp_path / "again") == snapshot(tiny["bfloat16"])
    mine, theirs = stored(tmp_path / "again"), stored(tmp_path / "other")
    assert [name for name in mine if mine[name]["data"] == theirs[name]["data"]] == ["transformer.audio.positional_embedding"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "huge"}, "unknown size 'huge', expected one of: tiny, layer, full"),
        ({"dtype": "int8"}, "unknown dtype 'int8', expected one of: bfloat16, float16, float32"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": SPAN}, "seed is"),
    ],
)
def test_wrong_request(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        write_random_checkpoint(tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


def test_existing_folder(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    write_random_checkpoint(tmp_path / "x")  # empty: taken
    before = snapshot(tmp_path / "x")
    with pytest.raises(UsageError, match="already holds a checkpoint"):
        write_random_checkpoint(tmp_path / "x", seed=1)
    assert snapshot(tmp_path / "x") == before
    write_random_checkpoint(tmp_path / "x", seed=1, force=True)
    assert snapshot(tmp_path / "x").keys() == before.keys() and snapshot(tmp_path / "x") != before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("force", [False, True])
def test_other_files_are_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds 'thesis\.txt', which is no part of a checkpoint"):
        write_random_checkpoint(tmp_path / "x", force=force)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        write_random_checkpoint(tmp_path / "file", force=force)
    with pytest.raises(UsageError, match="file' is not a folder"):
        write_random_checkpoint(tmp_path / "file" / "b", force=force)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x"]


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c" / "config.json").is_file()


def test_a_folder_that_has_the_temporary_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".x.converting").mkdir()
    (tmp_path / ".x.converting" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="move it away"):
        write_random_checkpoint(tmp_path / "x")
    assert (tmp_path / ".x.converting" / "thesis.txt").read_text() == "years of work"


def test_two_runs_at_once(tmp_path: Path) -> None:
    with locked(tmp_path / ".x.converting.lock", tmp_path / "x"), pytest.raises(UsageError, match=rf"process '{os.getpid()}' is writing"):
        write_random_checkpoint(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_no_part_of_the_next(tmp_path: Path) -> None:
    place = tmp_path / ".x.converting"
    (place / "new").mkdir(parents=True)
    place.chmod(0o700)
    (place / "made_by_qwenaudio_np").touch()
    (place / "new" / "model-00009-of-00009.safetensors").write_bytes(b"half")
    write_random_checkpoint(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and not (tmp_path / "x" / "model-00009-of-00009.safetensors").exists()


@pytest.mark.parametrize(("name", "said"), [("", "folder is an empty name"), ("/", "the whole disk")])
def test_names_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        write_random_checkpoint(name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", [0, 1, 500_000, 1_500_000])
@pytest.mark.parametrize("existing", [False, True])
def test_interruption_leaves_what_was_there(tmp_path: Path, after: int, existing: bool) -> None:
    if existing:
        write_random_checkpoint(tmp_path / "x", seed=9)
    before = snapshot(tmp_path / "x") if existing else None

    def interrupt(done: int, total: int) -> None:
        if done > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_random_checkpoint(tmp_path / "x", progress=interrupt, force=True)
    assert [path.name for path in tmp_path.iterdir()] == (["x"] if existing else [])
    assert not existing or snapshot(tmp_path / "x") == before


def test_failure_between_the_renames_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_random_checkpoint(tmp_path / "x", seed=9)
    before, rename = snapshot(tmp_path / "x"), Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ResourceError, match="input/output error"):
        write_random_checkpoint(tmp_path / "x", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and snapshot(tmp_path / "x") == before


def test_full_disk_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 16_000_000_000}))
    with pytest.raises(ResourceError, match=r"17\.64 GB needed, 16\.00 GB free"):
        write_random_checkpoint(tmp_path / "x", "full")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["write_text", "fsync", "replace"])
def test_disk_errors_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if call == "write_text" else os, call, fail)
    with pytest.raises(ResourceError, match="no space left on device"):
        write_random_checkpoint(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_random_checkpoint(tmp_path / "x", progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert {total for _, total in calls} == {calls[-1][0]} == {checkpoint_summary(tmp_path / "x", load_config(tmp_path / "x")).weight_bytes}
