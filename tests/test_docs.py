"""The documents are true: the tree lists the files there are, commands run and print what is shown, links lead somewhere."""

from __future__ import annotations

import ast
import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import qwenaudio_np

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("qwenaudio_np", "kernels", "convert")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
NOT_OURS = {".git", ".venv", "build", "dist", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "htmlcov"}
DOCUMENTS = [path for path in sorted(ROOT.rglob("*.md")) if not NOT_OURS & set(path.relative_to(ROOT).parts)]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 250, 50


class Block(NamedTuple):
    """A fenced block: the word after the fence, its text, the line it starts on."""

    language: str
    text: str
    line: int


def fenced_blocks(document: str) -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], document.count("\n", 0, match.start()) + 1) for match in found]


def commands(console: str) -> Iterator[tuple[str, str]]:
    """(command, output shown beneath) of a console block; a command's line may end in a backslash and go on."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        count = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\\n"))
        yield "".join(lines[:count]).strip(), "".join(lines[count:])


def same_output(shown: str, printed: str) -> bool:
    """Exactly equal, where `...` in what is shown stands for anything; nothing shown is no claim."""
    return not shown or doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- the README's tree -------------------------------------------------------------------------------------------


def listed_tree() -> dict[str, str]:
    """Path -> purpose, from the README's block that is marked `tree`; a folder ends in a slash, two spaces lead into it."""
    (block,) = [block for block in fenced_blocks((ROOT / "README.md").read_text(encoding="utf-8")) if block.language == "tree"]
    entries: dict[str, str] = {}
    folder = ""
    for line in block.text.splitlines():
        if re.fullmatch(r" {2}# \S.*", line):  # a heading inside a folder
            continue
        match = re.fullmatch(r"( {2})?(\S+) +(\S.*)", line)
        assert match, f"a line of the tree is not `name  purpose`: {line!r}"
        if not match[1]:
            folder = match[2] if match[2].endswith("/") else ""
        path = (folder if match[1] else "") + match[2]
        assert path not in entries, f"listed twice: {path}"
        entries[path] = match[3]
    return entries


def existing_tree() -> set[str]:
    """What lies in the three packages, and every top-level entry that git tracks (or, without git, that is not made by a tool)."""
    top = {path.name for path in ROOT.iterdir() if not path.name.endswith(".egg-info") and (path.is_file() or any(path.iterdir()))}
    if (ROOT / ".git").exists():
        listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        top = {line.partition("/")[0] for line in listing.splitlines()} & top or top
    top = {name for name in top - NOT_OURS if not name.startswith(".") or name == ".ci"}
    inside = [path for folder in FOLDERS for path in (ROOT / folder).iterdir() if path.name != "__pycache__"]
    names = {*top, *map(name_of, inside)}
    return {name + "/" if (ROOT / name).is_dir() else name for name in names}


def test_tree_is_complete_and_true() -> None:
    listed, existing = set(listed_tree()), existing_tree()
    assert sorted(listed - existing) == [], "in the README's tree, but not there"
    assert sorted(existing - listed) == [], "not in the README's tree"


def test_tree_gives_each_file_its_own_purpose() -> None:
    purposes = listed_tree()
    assert len(set(purposes.values())) == len(purposes), "two entries with the same purpose"


def test_table_of_places_is_true() -> None:
    """Each row that gives names `in [file](path)`: the file defines or stores every one of them."""
    rows = re.findall(r"^\|[^|]*\| (.*) in \[[^]]*\]\(([^)]*\.py)\) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows
    for names, path in rows:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert set(re.findall(r"`(\w+)`", names)) <= defined, path


# --- commands, Python and links ----------------------------------------------------------------------------------


@pytest.fixture()
def clone(tmp_path: Path) -> Path:
    """A copy of the repository, so that commands of the documents can write what they write."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_OURS, "*.egg-info"))
    return folder


def run(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit status, and what a terminal would show: standard output and standard error together."""
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": scripts, "COLUMNS": "100"}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    return done.returncode, done.stdout


def run_block(block: Block, folder: Path) -> None:
    steps = [(["bash", "-euo", "pipefail", "-c", command], shown) for command, shown in commands(block.text)]
    if block.language == "python":
        steps = [([sys.executable, "-c", block.text], "")]
    assert steps, f"line {block.line}: a console block without a `$ ` line"
    for command, shown in steps:
        status, printed = run(command, folder)
        assert status == 0, f"line {block.line}: {command[-1]}\n{printed}"
        assert same_output(shown, printed), f"line {block.line}: {command[-1]}\nshown:\n{shown}\nprinted:\n{printed}"


RUNNABLE = [path for path in DOCUMENTS if re.search("^```(console|python)$", path.read_text(encoding="utf-8"), re.MULTILINE)]


@pytest.mark.parametrize("document", RUNNABLE, ids=name_of)
def test_commands_and_python_run(document: Path, clone: Path) -> None:
    """In the document's order, in one folder: `console` blocks with the output they show, and `python` blocks."""
    for block in fenced_blocks(document.read_text(encoding="utf-8")):
        if block.language in ("console", "python"):
            run_block(block, clone)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_block_says_what_it_is(document: Path) -> None:
    """`console` and `python` are run, `tree` is compared, `sh` (set-up) and `text` are neither; nothing is left out by accident."""
    for block in fenced_blocks(document.read_text(encoding="utf-8")):
        assert block.language in ("console", "python", "tree", "sh", "text", "json"), f"line {block.line}: ```{block.language}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = document.read_text(encoding="utf-8")
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if not re.match(r"(https?|mailto):", link):
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def anchors(document: Path) -> set[str]:
    """The anchors a Markdown viewer gives to the headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_shows_code_by_line_six() -> None:
    assert fenced_blocks((ROOT / "README.md").read_text(encoding="utf-8"))[0].line < 6


def test_changelog_has_this_version() -> None:
    assert re.search(rf"^## \[{re.escape(qwenaudio_np.__version__)}\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_checks_can_fail() -> None:
    document = "a\n```console\n$ echo 1 \\\n  2\n1 2\n$ true\n```\n```python\nx\n```\n"
    first, second = fenced_blocks(document)
    assert (first.language, first.line, second.text, second.line) == ("console", 2, "x\n", 8)
    assert list(commands(first.text)) == [("echo 1 \\\n  2", "1 2\n"), ("true", "")]
    assert same_output("a\n...\nz\n", "a\nb\nc\nz\n") and same_output("", "anything")
    assert not same_output("a\n", "a\nb\n") and not same_output("a\n...\nz\n", "a\nb\n")


# --- the code's own documentation and size -------------------------------------------------------------------------


def is_signature(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and [ast.unparse(statement) for statement in node.body] == ["..."]


def is_instruction(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """`@_instruction(simd_python.twin)`: the twin, which is checked like everything, says what it computes."""
    return any(ast.unparse(decorator) == f"_instruction(simd_python.{node.name})" for decorator in node.decorator_list)


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions, classes and methods, with their dotted names; not the bare signatures (`...`) of a protocol."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not is_signature(node):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, prefix + node.name + ".")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    assert [name for name, node in public_definitions(tree.body) if not ast.get_docstring(node) and not is_instruction(node)] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES] == []
