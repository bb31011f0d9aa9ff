"""What is installed, under which names, and what the code may import."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import qwenaudio_np

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("qwenaudio_np", "kernels", "convert")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]

# Modules that run code found in data, that reach the network, or that hold the model a second time.
FORBIDDEN = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("socket", "ssl", "http", "urllib", "ftplib", "smtplib", "xmlrpc", "requests", "httpx", "aiohttp", "urllib3"),
    *("torch", "transformers", "librosa", "tiktoken", "scipy"),
}


def run_python(code: str, cwd: Path, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__"):
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant) and isinstance(argument.value, str))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, built from a copy of what the build reads."""
    pytest.importorskip("setuptools", minversion="70.1", reason="builds the wheel; install the extra: pip install -e '.[test]'")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in (*FOLDERS, "examples", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, source)
    run_python(f"from setuptools import build_meta as b; b.build_sdist({str(out)!r}); b.build_wheel({str(out)!r})", cwd=source)
    return out


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it lies in site-packages."""
    (wheel,) = built.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_has_one_top_level_name(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == {"qwenaudio_np", f"qwenaudio_np-{qwenaudio_np.__version__}.dist-info"}


def test_wheel_holds_every_source_file(unpacked: Path) -> None:
    expected = {path.relative_to(ROOT) for path in SOURCES}
    expected = {path if path.parts[0] == "qwenaudio_np" else "qwenaudio_np" / path for path in expected}
    package = unpacked / "qwenaudio_np"
    assert {path.relative_to(unpacked) for path in package.rglob("*.py")} == expected
    assert (package / "py.typed").is_file()


def test_wheel_holds_every_data_file(unpacked: Path) -> None:
    """A file that is not Python (a text to learn a vocabulary from) is easily forgotten in setup.cfg."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                installed = path.relative_to(ROOT) if folder == "qwenaudio_np" else Path("qwenaudio_np") / path.relative_to(ROOT)
                assert (unpacked / installed).is_file(), f"{installed} is not in the wheel: add it to package_data in setup.cfg"


def test_wheel_carries_licence_and_command(unpacked: Path) -> None:
    (info,) = unpacked.glob("*.dist-info")
    assert "qwenaudio-np = qwenaudio_np.cli:main" in (info / "entry_points.txt").read_text()
    assert [path.read_bytes() for path in info.rglob("LICENSE")] == [(ROOT / "LICENSE").read_bytes()]


def test_folders_import_as_submodules(unpacked: Path, tmp_path: Path) -> None:
    code = "import qwenaudio_np.kernels as k, qwenaudio_np.convert as c; print(k.__file__); print(c.__file__)"
    lines = run_python(code, cwd=tmp_path, PYTHONPATH=str(unpacked)).split()
    assert [Path(line).parent for line in lines] == [unpacked / "qwenaudio_np" / "kernels", unpacked / "qwenaudio_np" / "convert"]


def test_sdist_builds_without_tests(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    model = sum(path.stat().st_size for path in (ROOT / "qwenaudio_np" / "embedded_model").iterdir())
    assert sdist.stat().st_size < 2_000_000 + model
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(ROOT).as_posix() for path in SOURCES} <= names
    assert {"setup.cfg", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md"} <= names
    assert not [name for name in names if name.startswith("tests")]


def test_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", qwenaudio_np.__version__)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: qwenaudio_np.__version__"


def test_reference_does_not_load_numba(tmp_path: Path) -> None:
    """Every module of the reference package imports, from the repository without installation, and Numba stays out."""
    modules = [f"qwenaudio_np.{path.stem}" for path in (ROOT / "qwenaudio_np").glob("*.py") if not path.stem.startswith("__")]
    code = f"""
import importlib, sys
for name in {sorted(modules)!r}:
    importlib.import_module(name)
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"numba", "llvmlite"}}))
print([name for name in sys.modules if name.startswith(("qwenaudio_np.kernels", "qwenaudio_np.convert"))])
"""
    assert run_python(code, cwd=tmp_path, PYTHONPATH=str(ROOT)).split("\n")[:2] == ["[]", "[]"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports(path: Path) -> None:
    """No pickle, no network, no second framework; Numba in kernels/ alone; the habits that keep the folder mapping working."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set(imported_names(tree))
    top = {name.split(".")[0] for name in names}
    assert not top & FORBIDDEN
    if path.parent.name != "kernels":
        assert not top & {"numba", "llvmlite"}
    for folder in ("kernels", "convert"):
        assert folder not in top, f"`{folder}` is another package once installed; import qwenaudio_np.{folder}"
        if path.parent.name == folder:
            assert not [name for name in names if name.startswith(f"qwenaudio_np.{folder}")], "use relative imports within the folder"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("eval", "exec"), f"line {node.lineno}: runs text as code"
            assert not [word for word in node.keywords if word.arg == "allow_pickle" and ast.unparse(word.value) != "False"]


def test_import_check_sees_each_form() -> None:
    """The check above can fail: every way to write an import is found."""
    code = """
import pickle
import http.client as h
from urllib import request
from .x import y
def f():
    import socket
    importlib.import_module("numba.core")
"""
    assert set(imported_names(ast.parse(code))) == {"pickle", "http.client", "urllib.request", "socket", "numba.core"}


def test_no_test_reaches_the_network() -> None:
    with pytest.raises(RuntimeError, match="network"):
        socket.create_connection(("127.0.0.1", 9), timeout=1)


def test_every_dependency_has_a_lower_bound() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    core = setup["options"]["install_requires"].split()
    assert [re.match(r"\w+", line)[0] for line in core] == ["numpy", "numba", "safetensors", "soundfile", "regex", "soxr", "tqdm"]  # type: ignore[index]
    for line in [*core, *setup["options.extras_require"]["test"].splitlines()]:
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[\w-]+>=[\d.]+", line), line


def test_ci_runs_the_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.findall(r"^\s*(?:exec )?(make .*?)(?: <.*)?$", script.read_text(), re.MULTILINE) == ["make test"]
    assert "\nmake test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_all_public_names_are_found() -> None:
    assert set(dir(qwenaudio_np)) == set(qwenaudio_np.__all__)
