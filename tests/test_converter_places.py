"""What stands in the way of a conversion is left as it is: links, folders and files of others, and the source itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.errors import UsageError
from tests.make_checkpoint import make_checkpoint


@pytest.fixture()
def source(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "source")


@pytest.fixture()
def beside(tmp_path: Path) -> Path:
    """The folder of the destination."""
    (tmp_path / "beside").mkdir()
    return tmp_path / "beside"


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder, links not followed, with the bytes of files."""
    paths = [Path(base) / name for base, folders, files in os.walk(folder) for name in folders + files]
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def folder_of_others(path: Path) -> None:
    path.mkdir(mode=0o700)
    (path / "thesis.doc").write_text("x")


def open_folder(path: Path) -> None:
    folder_of_others(path)
    (path / "made_by_qwenaudio_np").touch()
    path.chmod(0o777)


def link_to_folder(path: Path) -> None:
    victim = path.parent / "victim"
    victim.mkdir(mode=0o700)
    (victim / "made_by_qwenaudio_np").touch()
    (victim / "thesis.doc").write_text("x")
    path.symlink_to(victim)


def link_to_file(path: Path) -> None:
    (path.parent / "victim.txt").write_text("12345")
    path.symlink_to("victim.txt")


def second_name(path: Path) -> None:
    (path.parent / "victim.txt").write_text("12345")
    path.hardlink_to(path.parent / "victim.txt")


IN_THE_WAY: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a folder of others": (".o.converting", folder_of_others),
    "a folder that others may write to": (".o.converting", open_folder),
    "a link to a folder": (".o.converting", link_to_folder),
    "a link to nothing": (".o.converting", lambda path: path.symlink_to("nothing")),
    "a file": (".o.converting", lambda path: path.write_text("x")),
    "a lock that is a link": (".o.converting.lock", link_to_file),
    "a lock that is a link to nothing": (".o.converting.lock", lambda path: path.symlink_to("nothing")),
    "a lock with a second name": (".o.converting.lock", second_name),
    "a lock that is a file of others": (".o.converting.lock", lambda path: path.write_text("dear diary")),
    "a lock that is a folder": (".o.converting.lock", folder_of_others),
}


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="links and rights as on Unix")
@pytest.mark.parametrize("case", IN_THE_WAY)
def test_what_is_in_the_way_is_left_alone(source: Path, beside: Path, case: str) -> None:
    name, put = IN_THE_WAY[case]
    put(beside / name)
    before = contents(beside)
    with pytest.raises(UsageError, match=name):
        convert_checkpoint(source, beside / "o", force=True)
    assert contents(beside) == before


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners as on Unix")
def test_a_work_folder_of_another_user(source: Path, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (beside / ".o.converting").mkdir(mode=0o700)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with pytest.raises(UsageError, match="another user"):
        convert_checkpoint(source, beside / "o")
    assert [path.name for path in beside.iterdir()] == [".o.converting"]


def test_a_folder_called_replaced_stays(source: Path, beside: Path) -> None:
    folder_of_others(beside / ".o.replaced")
    convert_checkpoint(source, beside / "o")
    assert (beside / ".o.replaced" / "thesis.doc").exists() and not (beside / "o" / "thesis.doc").exists()
