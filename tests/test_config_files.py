"""config.json and generation_config.json as files: whatever stands in their place, one clear line names the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qwenaudio_np.config import GenerationConfig, ModelConfig, load_config, parse_config
from qwenaudio_np.errors import FormatError, UnsupportedError
from qwenaudio_np.json_fields import parse_json
from tests.make_checkpoint import AUDIO, TEXT

FIELDS: dict[str, Any] = {**TEXT, "audio": {**AUDIO, "output_dim": 24}}



def write(folder: Path, data: bytes | str, name: str = "config.json") -> Path:
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def unreadable(folder: Path, *words: str) -> None:
    with pytest.raises(FormatError) as caught:
        load_config(folder)
    message = str(caught.value)
    assert "\n" not in message and not [word for word in words if word not in message], message


def test_loading_a_folder(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(FIELDS))
    assert load_config(tmp_path) == load_config(str(tmp_path)) == parse_config(FIELDS)
    write(tmp_path, '{"chat_format": "chatml"}', "generation_config.json")
    assert load_config(tmp_path) == ModelConfig(parse_config(FIELDS).text, parse_config(FIELDS).audio, GenerationConfig("chatml"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ("empty",)),
        (b"{", ("not valid JSON",)),
        (b"[]", ("a JSON list", "an object")),
        (b"null", ("an object",)),
        (b'"config"', ("a JSON str",)),
        (b'{"hidden_size": 1, "hidden_size": 2}', ("repeated",)),
        (b'{"rotary_pct": NaN}', ("NaN is not JSON",)),
        (b'{"rotary_pct": -Infinity}', ("-Infinity is not JSON",)),
        (b"[" * 200_000, ("nested too deeply",)),
        (b'{"a":' * 100_000, ("nested too deeply",)),
        (b'{"hidden_size": ' + b"9" * 10_000 + b"}", ("not valid JSON",)),
        (b"\xff\xfe{\x00}\x00", ("not UTF-8", "byte 0")),
        (b"\xef\xbb\xbf{}", ("not valid JSON",)),
        (b'{"model_type": "\xe9"}', ("not UTF-8", "byte 16")),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", ("git-lfs",)),
        (b"<!DOCTYPE html><html></html>", ("HTML",)),
        (b"Entry not found", ("error message of the server",)),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, bytes) else "",
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_files_that_are_no_config(tmp_path: Path, name: str, data: bytes, words: tuple[str, ...]) -> None:
    write(tmp_path, json.dumps(FIELDS))
    unreadable(write(tmp_path, data, name), name, *words)


def test_a_config_of_64_megabytes(tmp_path: Path) -> None:
    write(tmp_path, "")
    os.truncate(tmp_path / "config.json", 64 << 20)
    unreadable(tmp_path, "67108864 bytes", "at most 1048576")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_directory_in_its_place(tmp_path: Path, name: str) -> None:
    write(tmp_path, json.dumps(FIELDS))
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    unreadable(tmp_path, name, "is a directory")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_link_to_nowhere(tmp_path: Path, name: str) -> None:
    """A checkpoint fetched in part: the link is there, what it points to is not. Not the same as having no such file."""
    write(tmp_path, json.dumps(FIELDS))
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "blobs" / "0")
    unreadable(tmp_path, name, "no such file")


def test_a_folder_without_config(tmp_path: Path) -> None:
    unreadable(tmp_path, "config.json", "no such file")
    unreadable(tmp_path / "nowhere", "config.json", "no such file")


def test_numbers_and_letters_that_only_json_can_write(tmp_path: Path) -> None:
    assert parse_json(r'{"a": "\ud800"}', "x")["a"] == "\ud800"
    unreadable(write(tmp_path, json.dumps(FIELDS).replace("10000", "1e999")), "rotary_emb_base", "is inf,")
    write(tmp_path, json.dumps({**FIELDS, "model_type": "\ud800"}))
    with pytest.raises(UnsupportedError, match=r"\\ud800"):
        load_config(tmp_path)
