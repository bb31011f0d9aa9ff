"""What may happen beside a destination while work for it goes on, and what of hours of work stays then."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwenaudio_np.convert import converter
from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.convert.random_checkpoint import write_random_checkpoint
from qwenaudio_np.convert.verify import verify_checkpoint
from qwenaudio_np.errors import ResourceError, UsageError
from tests.conversion_tools import SMALL, left_over

KEPT = r"what is finished is kept in .*\.out\.converting', and the same command goes on from there"


def hashes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing may be written anew."""

    def never(path: Path, *rest: Any) -> None:
        raise AssertionError(f"{path.name} is written again")

    monkeypatch.setattr(converter, "write_safetensors", never)


def test_what_somebody_puts_at_the_destination_meanwhile_stays(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(done: int, total: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "thesis.txt").write_text("years of work")

    with pytest.raises(ResourceError, match=rf"holds 'thesis\.txt', which is no part of a checkpoint made here; .*; {KEPT}"):
        convert_checkpoint(short / "checkpoint", out, shard_size=SMALL, progress=put)
    assert (out / "thesis.txt").read_text() == "years of work"
    shutil.rmtree(out)
    hashes_only(monkeypatch)
    convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    assert verify_checkpoint(out, short / "checkpoint").ok and left_over(out.parent) == []


def test_work_stays_where_the_last_rename_is_refused(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        rename = Path.rename

        def refused(path: Path, target: Path) -> Path:
            if target == out:
                raise PermissionError(13, "Permission denied")
            return rename(path, target)

        patched.setattr(Path, "rename", refused)
        with pytest.raises(ResourceError, match=rf"permission denied; {KEPT}"):
            convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    hashes_only(monkeypatch)
    convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    assert verify_checkpoint(out, short / "checkpoint").ok and not list(out.glob("progress*"))


def test_a_protected_folder_is_refused_first(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert_checkpoint(short / "checkpoint", out)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out)  # root may write everywhere
    with pytest.raises(UsageError, match="protected against writing"):
        convert_checkpoint(short / "checkpoint", out, force=True)
    assert verify_checkpoint(out, short / "checkpoint").ok


def test_what_another_job_left_is_no_full_disk(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run deletes it, so its bytes count as free; here a shard that a killed run had half written."""
    left = half_written(out, ".model-00001-of-00001.safetensors.partial-1")
    (left / "link").symlink_to(short)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000_000 - sizes(left)))
    convert_checkpoint(short / "checkpoint", out)
    assert verify_checkpoint(out, short / "checkpoint").ok


def test_a_killed_random_checkpoint_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half_written(tmp_path / "out", "model.safetensors")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    write_random_checkpoint(tmp_path / "out")
    assert verify_checkpoint(tmp_path / "out").ok and left_over(tmp_path) == []


def test_a_lock_that_the_full_disk_refuses_is_one_line(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(ResourceError, match=r"cannot write '.*out': no space left on device"):
        convert_checkpoint(short / "checkpoint", out)
    assert left_over(out.parent) == []


def half_written(target: Path, name: str) -> Path:
    """The folder that a killed run for `target` was filling, with 10 MB of a file in it."""
    left = target.with_name(f".{target.name}.converting") / "new"
    left.mkdir(parents=True)
    left.parent.chmod(0o700)
    (left.parent / "made_by_qwenaudio_np").touch()
    (left / name).write_bytes(bytes(10_000_000))
    return left


def sizes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.iterdir() if path.is_file() and not path.is_symlink())
