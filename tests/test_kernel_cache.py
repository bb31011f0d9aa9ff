"""The cache of compiled code: used, private, and harmless when damaged, foreign or missing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kernel_parts import ROOT, compiled_only, part

PROGRAM = """
import numpy as np
from qwenaudio_np import backends
numba = backends.get("numba")
x = np.arange(120, dtype=np.float32).reshape(3, 40) / 7
result = numba.rms_norm(x, x[0] - 2, 1e-6)
from qwenaudio_np.kernels import norms
print(result.tobytes().hex(), sum(norms._rms_norm.stats.cache_hits.values()))
"""


def run_with(cache: Path | str, **environment: str) -> list[str]:
    """[result, how much came from the cache] of a new process."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    environment = inherited | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)} | environment
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout.split()


@compiled_only
def test_compiled_code_is_kept_and_damage_changes_nothing(tmp_path: Path) -> None:
    result, hits = run_with(tmp_path)
    assert hits == "0"
    folders = list((tmp_path / "qwenaudio_np").iterdir())
    assert len(folders) == 1
    assert all(part("cache_folder")._FILE.fullmatch(file.name) for file in folders[0].iterdir())  # so it can be cleared up one day
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (*folders, folders[0].parent)] == [0o700, 0o700]
    assert run_with(tmp_path) == [result, "1"]
    files = list(folders[0].iterdir())
    assert files
    for damage in (lambda data: data[: len(data) // 2], lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:]):
        for file in files:
            file.write_bytes(damage(file.read_bytes()))
        assert run_with(tmp_path) == [result, "0"]
    assert run_with(tmp_path) == [result, "1"]  # mended


@compiled_only
def test_a_cache_folder_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    result, _ = run_with(tmp_path)
    (folder,) = (tmp_path / "qwenaudio_np").iterdir()
    folder.chmod(0o777)
    assert run_with(tmp_path) == [result, "0"]


@compiled_only
def test_a_cache_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = part("cache_folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache.private_folder()
    assert folder is not None
    assert folder.parent == tmp_path / "qwenaudio_np"
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert cache.private_folder() is None


@compiled_only
def test_a_link_in_place_of_the_cache_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "qwenaudio_np").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert part("cache_folder").private_folder() is None


@compiled_only
def test_without_any_cache_folder_everything_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result, hits = run_with(tmp_path / "file")  # a file where the folder should be
    assert hits == "0"
    assert run_with("", HOME=str(tmp_path / "file"))[0] == result


@compiled_only
def test_compiling_is_announced_once(tmp_path: Path) -> None:
    program = """
import numpy as np
from qwenaudio_np import backends
numba = backends.get("numba", notice=print)
x = np.ones((3, 40), np.float32)
numba.rms_norm(x, x[0], 1e-6)
numba.layer_norm(x, x[0], x[0])
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    told = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert told[0].startswith("compiling kernels") and told[0].count("\n") == 1
    assert told[1] == ""


def test_the_fingerprint_changes_with_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = part("cache_folder")
    for source in Path(cache.__file__).parent.glob("*.py"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache_folder.py"))
    constants = tmp_path / "quantised.py"  # the definition's, which kernels take as they are
    constants.write_bytes(Path(cache.quantised.__file__).read_bytes())
    monkeypatch.setattr(cache.quantised, "__file__", str(constants))
    names = {cache.fingerprint()}
    for source in sorted(tmp_path.glob("*.py")):
        source.write_text(source.read_text() + "\n")
        names.add(cache.fingerprint())
    assert len(names) == 1 + len(list(tmp_path.glob("*.py")))


@pytest.mark.parametrize("setting", ["OPT", "ENABLE_AVX", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT"])
def test_the_fingerprint_changes_with_every_setting_that_shapes_code(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = part("cache_folder")
    usual = cache.fingerprint()
    monkeypatch.setattr(cache.numba.config, setting, "another")
    assert cache.fingerprint() != usual


# --- folders of old versions ------------------------------------------------------------------------------------------------


def old_folder(base: Path, name: str, days: float, files: tuple[str, ...] = ()) -> Path:
    """A private folder that was last used so many days ago."""
    folder = base / name
    folder.mkdir(mode=0o700)
    for file in files:
        (folder / file).write_text("x")
    os.utime(folder, (time.time() - days * 86400,) * 2)
    return folder


def test_only_unused_folders_of_this_program_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (*(f"{'0a' * 16}{ending}" for ending in (".nbi", ".1.nbc", ".sha256", ".1.nbc.tmp.1f2e")), "tmpabcd1234")
    gone = [old_folder(tmp_path, "a" * 24, 31, code), old_folder(tmp_path, "b" * 24, 400)]
    kept = [
        old_folder(tmp_path, "c" * 24, 29, code),  # in use
        old_folder(tmp_path, "d" * 24, -400, code),  # of a clock that went wrong
        old_folder(tmp_path, "e" * 24, 31, ("notes.txt",)),
        old_folder(tmp_path, "f" * 23, 31, code),
        old_folder(tmp_path, "photographs of my cats..", 31, code),
        old_folder(tmp_path, "1" * 24, 31, code),
    ]
    kept[-1].chmod(0o777)  # others can write there, so what is in it may be theirs
    (tmp_path / ("2" * 24)).symlink_to(kept[0])
    (tmp_path / ("3" * 24)).write_text("a file")
    os.utime(tmp_path / ("3" * 24), (0, 0))
    part("cache_folder").remove_unused(tmp_path)
    assert not any(folder.exists() for folder in gone)
    assert all(folder.is_dir() for folder in kept) and (kept[2] / "notes.txt").exists()
    assert sorted(file.name for file in kept[0].iterdir()) == sorted(code)
    assert (tmp_path / ("2" * 24)).is_symlink() and (tmp_path / ("3" * 24)).is_file()


def test_folders_of_somebody_else_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = old_folder(tmp_path, "a" * 24, 31)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
        part("cache_folder").remove_unused(tmp_path)
    assert folder.is_dir()
    part("cache_folder").remove_unused(tmp_path)
    assert not folder.exists()


def test_a_folder_in_use_says_so_and_a_new_one_clears_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = part("cache_folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = tmp_path / "qwenaudio_np"
    base.mkdir(mode=0o700)
    first = old_folder(base, "a" * 24, 31)
    folder = cache.private_folder()  # new
    assert folder is not None and not first.exists()
    second = old_folder(base, "b" * 24, 31)
    assert cache.private_folder() == folder and second.exists()  # not twice a day
    os.utime(folder, (time.time() - 40 * 86400,) * 2)
    assert cache.private_folder() == folder and not second.exists() and time.time() - folder.stat().st_mtime < 3600


@pytest.mark.parametrize("refused", ["rmdir", "utime"])
def test_what_cannot_be_removed_harms_nothing(refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = part("cache_folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = tmp_path / "qwenaudio_np"
    base.mkdir(mode=0o700)
    old = old_folder(base, "a" * 24, 31)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(*{"rmdir": (Path, "rmdir"), "utime": (os, "utime")}[refused], refuse)
    assert cache.private_folder() == base / cache.fingerprint() and old.exists()
