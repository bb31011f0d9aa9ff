"""Downloading from a server that plays the hub: the right files and no others, one commit, resumed after a cut."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qwenaudio_np.convert import download as module
from qwenaudio_np.convert.download import download, wanted_files
from qwenaudio_np.errors import QwenAudioError, ResourceError, UsageError
from tests.cli_tools import environment
from tests.make_checkpoint import make_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = ["config.json", "qwen.tiktoken", "generation_config.json", "tokenizer_config.json"]
CODE = ["modeling_qwen.py", "tokenization_qwen.py", "model.safetensors.py", "handler.py", "run.sh", ".gitattributes", "README.md"]


# --- which files -------------------------------------------------------------------------------------------------------


def test_safetensors_are_preferred_and_code_is_left() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    bins = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"]
    found = wanted_files([*CODE, *SMALL, *bins, *shards], "a/b")
    assert sorted(found) == sorted([*SMALL, *shards]) and found[0] == "config.json"
    assert sorted(wanted_files([*CODE, *SMALL, *bins], "a/b")) == sorted([*SMALL, *bins])
    assert wanted_files(["model.safetensors", *shards, *CODE], "a/b") == ("model.safetensors",)


@pytest.mark.parametrize("name", ["../model.safetensors", "sub/model.safetensors", "model.safetensors\n", "Model.safetensors", "x.py"])
def test_other_names_are_not_weights(name: str) -> None:
    with pytest.raises(QwenAudioError, match="holds neither"):
        wanted_files([name, *CODE, *SMALL], "a/b")


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b/c", "https://x.y/z", "a/..", "-x", "a/b\n", "a\u0660"])
def test_names_that_are_no_repositories(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="repository"):
        download(name, tmp_path / "out")


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder is an empty name"):
        download("a/b", "")
    (tmp_path / "file").write_text("x")
    for place in ("file", "no/folder"):
        with pytest.raises(UsageError, match="cannot be a folder"):
            download("a/b", tmp_path / place)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", missing)
    with pytest.raises(ResourceError, match=r"qwenaudio_np\[hub\]"):
        download("a/b", tmp_path / "out")


# --- against a server --------------------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """Answers for one repository, `owner/model`, whose files are those of a folder; notes what is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.folder, self.asked, self.cut = folder, list[str](), set[str]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if re.fullmatch(rf"/api/models/owner/model(/revision/(main|v1|{COMMIT}))?", path):
            self.send("200 OK", self.description(), body)
            return
        match = re.fullmatch(rf"/owner/model/resolve/{COMMIT}/([^/]+)", path)
        if not match or not (self.server.folder / match[1]).is_file():
            code = "EntryNotFound" if match else "RevisionNotFound" if "owner/model" in path else "RepoNotFound"
            self.send("404 Not Found", b"", body, {"X-Error-Code": code, "X-Error-Message": "there is no such thing"})
            return
        self.send_file(match[1], (self.server.folder / match[1]).read_bytes(), body)

    def description(self) -> bytes:
        files = [{"rfilename": path.name, "size": path.stat().st_size} for path in sorted(self.server.folder.iterdir())]
        about = {"id": "owner/model", "modelId": "owner/model", "sha": COMMIT, "private": False, "tags": [], "siblings": files}
        return json.dumps(about).encode()

    def send_file(self, name: str, data: bytes, body: bool) -> None:
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        begin = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if body:
            self.server.asked.append(name + (f" from {begin[1]}" if begin else ""))
        if begin:
            headers["Content-Range"] = f"bytes {begin[1]}-{len(data) - 1}/{len(data)}"
            data = data[int(begin[1]) :]
        if body and name in self.server.cut:
            self.server.cut.remove(name)
            self.send("200 OK", data[: len(data) // 2], body, {**headers, "Content-Length": str(len(data))})
            self.close_connection = True
            return
        self.send("206 Partial Content" if begin else "200 OK", data, body, headers)

    def send(self, status: str, data: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(int(status[:3]), status[4:])
        for key, value in ({"Content-Length": str(len(data)), "Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture()
def hub(tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed: pip install -e '.[hub]'")
    folder = make_checkpoint(tmp_path / "repository")
    for name in CODE:
        (folder / name).write_text("raise SystemExit('this must not run')\n")
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(hub: Hub, out: Path, repository: str = "owner/model", **options: str) -> tuple[int, str]:
    """`download` in a process of its own: this one may not connect to anything."""
    code = f"""
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 4096  # of 10 MB, so that half of a small file counts
from qwenaudio_np.convert.download import download
from qwenaudio_np.errors import QwenAudioError
try:
    done = download({repository!r}, {str(out)!r}, **{options!r})
except QwenAudioError as error:
    print("error:", error)
    raise SystemExit(1)
print(done.commit, *done.files)
"""
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(out.parent / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_TOKEN": "", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment(**settings), capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.strip()


def test_download(hub: Hub, tmp_path: Path) -> None:
    status, printed = fetch(hub, tmp_path / "out", revision="v1")
    assert (status, printed) == (0, f"{COMMIT} config.json qwen.tiktoken model.safetensors")
    assert hub.asked == ["config.json", "qwen.tiktoken", "model.safetensors"]
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert found == {name: (hub.folder / name).read_bytes() for name in ("config.json", "qwen.tiktoken", "model.safetensors")}
    assert not list((tmp_path / "out").rglob("*.py"))
    hub.asked.clear()
    assert fetch(hub, tmp_path / "out")[0] == 0 and hub.asked == []  # all there already


def test_a_cut_download_is_resumed(hub: Hub, tmp_path: Path) -> None:
    hub.cut.add("model.safetensors")
    status, _ = fetch(hub, tmp_path / "out")
    if status:  # versions of huggingface_hub that do not try again by themselves
        status, _ = fetch(hub, tmp_path / "out")
    assert status == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    assert [name for name in hub.asked if name.startswith("model.safetensors from ")], hub.asked


@pytest.mark.parametrize(("repository", "options"), [("owner/other", {}), ("owner/model", {"revision": "nothing"})])
def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path, repository: str, options: dict[str, str]) -> None:
    status, printed = fetch(hub, tmp_path / "out", repository, **options)
    assert status == 1 and printed.startswith("error: cannot fetch") and "\n" not in printed
    assert not (tmp_path / "out").exists()


def test_no_hub(hub: Hub, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    status, printed = fetch(hub, tmp_path / "out")
    assert status == 1 and printed.startswith("error: cannot fetch") and "\n" not in printed
