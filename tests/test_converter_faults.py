"""What a conversion leaves behind when it is refused: nothing, and what was there before stays as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.convert import workplace
from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.convert.verify import verify_checkpoint
from qwenaudio_np.errors import FormatError, MismatchError, QwenAudioError, ResourceError, UnsafeError, UsageError
from tests.cli_tools import environment
from tests.conversion_tools import SMALL, everything, left_over, stored
from tests.make_checkpoint import make_checkpoint
from tests.torch_fixtures import FOLDER

# --- refused before anything is written --------------------------------------------------------------------------------


def changed(folder: Path, name: str, edit: Callable[[dict[str, Any]], Any]) -> Path:
    fields = json.loads((folder / name).read_text())
    edit(fields)
    (folder / name).write_text(json.dumps(fields))
    return folder


def exchange(index: dict[str, Any]) -> None:
    first, second = sorted(set(index["weight_map"].values()))
    index["weight_map"] = {name: second if shard == first else first for name, shard in index["weight_map"].items()}


def bad_sources() -> dict[str, tuple[Callable[[Path], Any], type[QwenAudioError]]]:
    index = "model.safetensors.index.json"

    def points_to(name: Any, tensor: str = "lm_head.weight") -> Callable[[Path], Any]:
        return lambda folder: changed(folder, index, lambda f: f["weight_map"].update({tensor: name}))

    return {
        "no config": (lambda f: (f / "config.json").unlink(), FormatError),
        "no vocabulary": (lambda f: (f / "qwen.tiktoken").unlink(), UsageError),
        "bad vocabulary": (lambda f: (f / "qwen.tiktoken").write_text("x"), FormatError),
        "no weights": (lambda f: [p.unlink() for p in f.glob("model*")], FormatError),
        "missing shard": (lambda f: (f / "model-00002-of-00002.safetensors").unlink(), FormatError),
        "cut shard": (lambda f: os.truncate(f / "model-00002-of-00002.safetensors", 5000), FormatError),
        "more layers than tensors": (lambda f: changed(f, "config.json", lambda c: c.update(num_hidden_layers=9)), MismatchError),
        "fewer layers than tensors": (lambda f: changed(f, "config.json", lambda c: c.update(num_hidden_layers=1)), MismatchError),
        "another width": (lambda f: changed(f, "config.json", lambda c: c.update(intermediate_size=8)), MismatchError),
        "index to a parent": (points_to("../model.safetensors"), UnsafeError),
        "index to a device": (points_to("/dev/zero"), UnsafeError),
        "index to a hidden file": (points_to(".x.safetensors"), UnsafeError),
        "index to a pickle": (points_to("pytorch_model.bin"), FormatError),
        "index to a number": (points_to(5), FormatError),
        "index with two shards exchanged": (lambda f: changed(f, index, exchange), MismatchError),
        "index without a tensor": (lambda f: changed(f, index, lambda i: i["weight_map"].pop("lm_head.weight")), MismatchError),
        "index with another tensor": (points_to("model-00001-of-00002.safetensors", "x"), MismatchError),
    }


@pytest.mark.parametrize("case", bad_sources())
def test_bad_sources(short: Path, tmp_path: Path, out: Path, case: str) -> None:
    source = tmp_path / "source"
    shutil.copytree(short / "checkpoint", source)
    spoil, error = bad_sources()[case]
    spoil(source)
    with pytest.raises(error) as caught:
        convert_checkpoint(source, out)
    assert str(caught.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "options",
    [{"weights": "float8"}, {"shard_size": 10}, {"from_": "gguf"}, {"seed": -1}, {"from_": "whisper"}, {"from_": "pytorch"}],
)
def test_impossible_requests(short: Path, tmp_path: Path, out: Path, options: dict[str, Any]) -> None:
    with pytest.raises(QwenAudioError):
        convert_checkpoint(short / "checkpoint", out, **options)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be(short: Path, tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source")
    with pytest.raises(UsageError, match="comes from"):
        convert_checkpoint(source, source, force=True)
    with pytest.raises(UsageError, match="comes from"):
        convert_checkpoint(source / "model.safetensors", source, config=source, force=True)
    with pytest.raises(UsageError, match="no such file"):
        convert_checkpoint(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UsageError, match="existing folder"):
        convert_checkpoint(source, tmp_path / "a" / "b")
    with pytest.raises(UsageError, match=r"neither a folder nor"):
        convert_checkpoint(source / "config.json", tmp_path / "out")
    with pytest.raises(UsageError, match="--audio-from"):
        convert_checkpoint(FOLDER / "whisper.pt", tmp_path / "out", config=source)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_too_large_values_leave_nothing(tmp_path: Path, out: Path) -> None:
    source = make_checkpoint(tmp_path / "source", extra={"lm_head.weight": np.full((3784, 24), 1e6)})
    with pytest.raises(MismatchError, match=r"lm_head\.weight.*bfloat16"):
        convert_checkpoint(source, out, weights="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- existing destinations -----------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_without_force(short: Path, out: Path) -> None:
    convert_checkpoint(short / "checkpoint", out)
    before = everything(out)
    with pytest.raises(UsageError, match="--force"):
        convert_checkpoint(short / "checkpoint", out, weights="float32")
    assert everything(out) == before
    convert_checkpoint(short / "checkpoint", out, weights="float32", force=True)
    assert verify_checkpoint(out, short / "checkpoint").ok and everything(out) != before
    assert left_over(out.parent) == []


def test_force_replaces_checkpoints_only(short: Path, out: Path) -> None:
    out.mkdir()
    (out / "thesis.doc").write_text("x")
    with pytest.raises(UsageError, match="thesis"):
        convert_checkpoint(short / "checkpoint", out, force=True)
    (out / "thesis.doc").unlink()
    convert_checkpoint(short / "checkpoint", out)  # an empty folder may be used
    shutil.rmtree(out)
    out.write_text("a file")
    with pytest.raises(UsageError, match="not a folder"):
        convert_checkpoint(short / "checkpoint", out, force=True)


def test_two_at_once(short: Path, out: Path) -> None:
    """The second one is refused with the first one's process number; the first one is not harmed."""
    seen: list[str] = []

    def second(done: int, total: int) -> None:
        if not seen:
            seen.append("")
            with pytest.raises(UsageError) as caught:
                convert_checkpoint(short / "checkpoint", out)
            seen[0] = str(caught.value)

    convert_checkpoint(short / "checkpoint", out, progress=second)
    assert f"'{os.getpid()}'" in seen[0]
    assert verify_checkpoint(out).ok and left_over(out.parent) == []


# --- progress, memory, disk ------------------------------------------------------------------------------------------


def test_progress_counts_every_byte(short: Path, out: Path) -> None:
    steps: list[tuple[int, int]] = []
    convert_checkpoint(short / "checkpoint_bin", out, progress=lambda done, total: steps.append((done, total)))
    sources = sum(path.stat().st_size for path in (short / "checkpoint_bin").glob("*.bin"))
    total = sources + sum(len(entry.data) for entry in stored(out).values())
    assert steps[-1] == (total, total) and {step[1] for step in steps} == {total}
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_memory_does_not_grow_with_the_tensor(tmp_path: Path, out: Path) -> None:
    """A table of 92 MB passes through in blocks of 8 MiB and their conversion."""
    source = make_checkpoint(tmp_path / "source", vocab_size=1_000_000, num_hidden_layers=1, audio={"none": True})
    tracemalloc.start()
    try:
        convert_checkpoint(source, out, weights="bfloat16")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 75_000_000


def test_disk_space_is_looked_at_before_anything_long(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workplace.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))  # type: ignore[attr-defined]
    hashed: list[int] = []
    with pytest.raises(ResourceError, match=r"disk space.*: [0-9.]+ MB needed, 5 bytes free"):
        convert_checkpoint(short / "checkpoint", out, progress=lambda done, total: hashed.append(done))
    assert not hashed and not list(out.parent.iterdir())


@pytest.mark.parametrize("call", [1, 3, 5, 9])
def test_disk_full_half_way(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """The n-th attempt to put data on the disk fails (the even ones are for folders): no destination, and the next run goes on."""
    fsync, count = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match="no space left"):
            convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    assert not out.exists()
    convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    assert verify_checkpoint(out, short / "checkpoint").ok and left_over(out.parent) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits on Windows")
def test_file_size_limit(short: Path, out: Path) -> None:
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.errors import ResourceError
try:
    convert_checkpoint({str(short / "checkpoint")!r}, {str(out)!r})
except ResourceError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert "too large" in done.stdout and done.stderr == "" and not out.exists()


def test_a_source_that_changes_meanwhile(tmp_path: Path, out: Path) -> None:
    source = make_checkpoint(tmp_path / "source")

    def touch(done: int, total: int) -> None:
        os.utime(source / "model.safetensors", ns=(1, 1))

    with pytest.raises(FormatError, match="changed"):
        convert_checkpoint(source, out, progress=touch)
    assert not out.exists()
