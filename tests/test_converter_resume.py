"""A conversion that was stopped, killed or cut off from its source goes on where it was, and never leaves half a folder."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.cli import main
from qwenaudio_np.convert import converter, source_file
from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.convert.verify import verify_checkpoint
from qwenaudio_np.errors import ResourceError, UsageError
from tests.conversion_tools import SMALL, everything, left_over
from tests.kills import kill_at_random_moments
from tests.make_checkpoint import make_checkpoint


class Stop(BaseException):
    """Like KeyboardInterrupt: nothing on the way catches it."""


def interrupted(source: Path, out: Path, share: float, **options: Any) -> None:
    def stop(done: int, total: int) -> None:
        if done > share * total:
            raise Stop

    with pytest.raises(Stop):
        convert_checkpoint(source, out, shard_size=SMALL, progress=stop, **options)


def written_shards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are written from now on."""
    names: list[str] = []
    write = converter.write_safetensors

    def noting(path: Path, *rest: Any) -> None:
        names.append(path.name)
        write(path, *rest)

    monkeypatch.setattr(converter, "write_safetensors", noting)
    return names


def test_finished_shards_are_kept(short: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert_checkpoint(short / "checkpoint", tmp_path / "whole", shard_size=SMALL)
    interrupted(short / "checkpoint", out, 0.8)
    assert not out.exists() and left_over(tmp_path) == [".out.converting"]
    names = written_shards(monkeypatch)
    convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    total = len(list(out.glob("*.safetensors")))
    assert 0 < len(names) < total
    assert everything(out) == everything(tmp_path / "whole") and left_over(tmp_path) == []


def test_a_damaged_shard_is_written_again(short: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(short / "checkpoint", out, 0.8)
    shard = min((tmp_path / ".out.converting" / "new").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    names = written_shards(monkeypatch)
    convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    assert shard.name in names and verify_checkpoint(out, short / "checkpoint").ok


def test_another_job_starts_over(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(short / "checkpoint", out, 0.8)
    names = written_shards(monkeypatch)
    convert_checkpoint(short / "checkpoint", out, shard_size=SMALL, weights="float32")
    assert len(names) == len(list(out.glob("*.safetensors"))) and verify_checkpoint(out, short / "checkpoint").ok


@pytest.mark.parametrize("notes", [b"", b"{}", b"[]", b'{"job": 1, "files": 2, "tensors": 3}', b"\xff"])
def test_damaged_notes_start_over(short: Path, out: Path, tmp_path: Path, notes: bytes) -> None:
    interrupted(short / "checkpoint", out, 0.8)
    (tmp_path / ".out.converting" / "new" / "progress.json").write_bytes(notes)
    (tmp_path / ".out.converting" / "new" / "stray").mkdir()
    convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    assert verify_checkpoint(out, short / "checkpoint").ok and not (out / "stray").exists()


def test_a_run_that_is_stopped_twice_loses_nothing(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(short / "checkpoint", out, 0.8)
    place = out.with_name(".out.converting") / "new"
    finished = json.loads((place / "progress.json").read_text())["files"]

    def stop(path: Path, *rest: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(converter, "write_safetensors", stop)
        with pytest.raises(Stop):
            convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    names = written_shards(monkeypatch)
    convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    assert finished and not finished.keys() & set(names)


def test_a_source_that_cannot_be_read_for_a_moment(short: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network drive that fails half way: what was finished before is used by the next run."""
    interrupted(short / "checkpoint", out, 0.8)

    class Stream:
        def seek(self, place: int) -> None:
            raise OSError(5, "Input/output error")

    rows = source_file.SourceFile.rows

    def failing(file: source_file.SourceFile, *rest: Any) -> Any:
        file._stream = Stream()  # type: ignore[assignment]
        return rows(file, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(source_file.SourceFile, "rows", failing)
        with pytest.raises(ResourceError, match=r"cannot read .*input/output error"):
            convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    names = written_shards(monkeypatch)
    convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    assert 0 < len(names) < len(list(out.glob("*.safetensors")))


def test_an_interruption_says_what_is_kept(short: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line; before the first shard is finished there is nothing to speak of."""
    write, calls = converter.write_safetensors, 0

    def stop(path: Path, *rest: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        write(path, *rest)

    words = ["convert", str(short / "checkpoint"), str(out), "--shard-size", f"{SMALL}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "write_safetensors", stop)
        assert main(words) == 130
    place = str(tmp_path / ".out.converting")
    said = f"interrupted; what is finished is kept in {place!r}, and the same command goes on from there\n"
    assert capsys.readouterr().err == said
    assert main(words) == 0 and verify_checkpoint(out, short / "checkpoint").ok and left_over(tmp_path) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "write_safetensors", lambda *rest: signal.raise_signal(signal.SIGINT))
        assert main([*words[:2], str(tmp_path / "other"), *words[3:]]) == 130
    assert capsys.readouterr().err == "interrupted\n" and left_over(tmp_path) == []


def test_a_full_disk_says_what_is_kept(short: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = converter.write_safetensors, 0

    def full(path: Path, *rest: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ResourceError("cannot write 'x': no space left on device")
        write(path, *rest)

    monkeypatch.setattr(converter, "write_safetensors", full)
    with pytest.raises(ResourceError, match=r"no space left on device; what is finished is kept in .*\.out\.converting', and the same"):
        convert_checkpoint(short / "checkpoint", out, shard_size=SMALL)
    calls = 1
    with pytest.raises(ResourceError, match=r"no space left on device$"):
        convert_checkpoint(short / "checkpoint", tmp_path / "other", shard_size=SMALL)


def test_warnings_survive_an_interruption(tmp_path: Path, out: Path) -> None:
    source = make_checkpoint(tmp_path / "source", extra={"transformer.h.0.ln_1.weight": np.array([np.nan] * 3 + [1.0] * 21)})
    whole = convert_checkpoint(source, tmp_path / "whole", shard_size=SMALL).warnings
    interrupted(source, out, 0.95)
    assert convert_checkpoint(source, out, shard_size=SMALL).warnings == whole != ()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_killed_at_random_moments(short: Path, tmp_path: Path) -> None:
    """Six of them; more: python -m tests.kills."""
    kill_at_random_moments(short / "checkpoint", tmp_path, 6, seed=4)


def test_after_a_kill_between_the_two_renames(short: Path, out: Path, tmp_path: Path) -> None:
    """The old folder stands aside and there is no new one: the next run puts it back, then obeys."""
    convert_checkpoint(short / "checkpoint", out)
    before = everything(out)
    interrupted(short / "checkpoint", out, 0.8, force=True)
    out.rename(tmp_path / ".out.converting" / "old")
    with pytest.raises(UsageError, match="--force"):
        convert_checkpoint(short / "checkpoint", out)
    assert everything(out) == before and not (tmp_path / ".out.converting" / "old").exists()
    convert_checkpoint(short / "checkpoint", out, force=True)
    assert left_over(tmp_path) == []
