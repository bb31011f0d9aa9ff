"""What stands in the way of a conversion is left as it is: links, folders and files of others, and the source itself."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.convert.random_checkpoint import write_random_checkpoint
from qwenaudio_np.convert.source_file import open_source_file
from qwenaudio_np.errors import QwenAudioError, UsageError
from tests.make_checkpoint import make_checkpoint
from tests.torch_fixtures import FOLDER


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


@pytest.mark.skipif(sys.platform == "win32", reason="rights as on Unix")
@pytest.mark.parametrize("rights", [0o700, 0o750, 0o2775])
def test_an_existing_destination_keeps_its_rights(source: Path, beside: Path, rights: int) -> None:
    (beside / "o").mkdir()
    for _ in ("empty", "full"):
        (beside / "o").chmod(rights)
        convert_checkpoint(source, beside / "o", force=True)
        assert stat.S_IMODE((beside / "o").stat().st_mode) == rights and (beside / "o" / "manifest.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="rights as on Unix")
def test_a_new_destination_gets_the_usual_rights(source: Path, beside: Path) -> None:
    before = os.umask(0o027)
    try:
        convert_checkpoint(source, beside / "o")
    finally:
        os.umask(before)
    assert stat.S_IMODE((beside / "o").stat().st_mode) == 0o750


def test_a_link_is_not_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "o").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        convert_checkpoint(source, tmp_path / "o", force=True)
    assert not list((tmp_path / "elsewhere").iterdir())


# --- the source itself ---------------------------------------------------------------------------------------------------


def refused_for_its_source(out: Path, source: Path, **options: Any) -> None:
    before = contents(out)
    with pytest.raises(UsageError, match="comes from"):
        convert_checkpoint(source, out, force=True, **options)
    assert contents(out) == before and not list(out.parent.glob(".*"))


def test_a_source_of_links_into_the_destination(source: Path, tmp_path: Path) -> None:
    """As the cache of a hub: the folder of the source holds links, the files are where the new folder is to be."""
    (tmp_path / "links").mkdir()
    for path in source.iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    refused_for_its_source(source, tmp_path / "links")
    for path in source.iterdir():  # the weights may lie elsewhere: a replaced config.json is as bad
        if path.suffix == ".safetensors":
            path.rename(tmp_path / "kept.safetensors")
    (tmp_path / "links" / "model.safetensors").unlink()
    (tmp_path / "links" / "model.safetensors").symlink_to(tmp_path / "kept.safetensors")
    refused_for_its_source(source, tmp_path / "links")


def test_a_config_or_an_encoder_in_the_destination(source: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    (source / "model.safetensors").rename(weights)
    refused_for_its_source(source, weights, config=source)
    out = make_checkpoint(tmp_path / "out")
    (out / "model.safetensors").unlink()
    shutil.copy(FOLDER / "whisper.pt", out / "encoder.safetensors")
    (tmp_path / "encoder.pt").symlink_to(out / "encoder.safetensors")
    refused_for_its_source(out, weights, config=source, audio_from=tmp_path / "encoder.pt")


def test_a_folder_called_like_a_shard(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    (out / "x.safetensors").mkdir(parents=True)
    (out / "x.safetensors" / "thesis.doc").write_text("x")
    with pytest.raises(UsageError, match=r"holds 'x\.safetensors'"):
        convert_checkpoint(source, out, force=True)
    assert (out / "x.safetensors" / "thesis.doc").exists()


@pytest.mark.parametrize("options", [{"source": ""}, {"destination": ""}, {"config": ""}, {"audio_from": ""}])
def test_an_empty_name_is_not_the_current_folder(source: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="empty name"):
        convert_checkpoint(**{"source": source, "destination": tmp_path / "o", "force": True} | options)


@pytest.mark.parametrize("what", ["source", "destination", "config", "audio_from"])
def test_a_name_that_no_system_has(source: Path, tmp_path: Path, what: str) -> None:
    with pytest.raises(UsageError, match=rf"{what} 'a\\x00b' holds a NUL"):
        convert_checkpoint(**{"source": source, "destination": tmp_path / "o"} | {what: "a\0b"})  # type: ignore[arg-type]


def test_a_header_is_read_from_the_file_that_is_open(source: Path) -> None:
    """Another file of the same size takes its name between the two: what was opened counts."""
    path = source / "model.safetensors"
    with open_source_file(path) as file:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data.replace(b"lm_head", b"ML_HEAD"))
        assert "lm_head.weight" in file.safetensors_header().tensors


def test_where_a_disk_is_mounted(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "disk")
    with pytest.raises(UsageError, match="mounted"):
        convert_checkpoint(source, tmp_path / "disk")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "source"]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_links_in_a_circle_are_no_place(source: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for write in (lambda place: convert_checkpoint(source, place), lambda place: write_random_checkpoint(place, "tiny")):
        with pytest.raises(QwenAudioError, match=r"loop' exists and is not a folder; choose another name"):
            write(tmp_path / "loop")
