"""A checkpoint from the Hugging Face hub: its weights, config and vocabulary, and never its code.

Which files are fetched is decided here, by exact names, before anything is: of a repository with both kinds of weights only
safetensors are taken. The revision is fixed to one commit first, so all files are of one version, and a run that was cut off is resumed.
Needs the package huggingface_hub (pip install 'qwenaudio_np[hub]'); HF_ENDPOINT and HF_TOKEN are obeyed by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from qwenaudio_np.checkpoint import INDEX_FILE, SINGLE_FILE
from qwenaudio_np.errors import QwenAudioError, ResourceError, UsageError, shown

from .recipe import COPIED
from .request import require_paths
from .weight_source import PYTORCH_FILE, PYTORCH_INDEX
from .workplace import require_disk

Progress = Callable[[str, int, int], None]  # file about to be fetched, its number from 1, number of files

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_SAFETENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors", re.ASCII)
_PYTORCH = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin", re.ASCII)


@dataclass(frozen=True)
class Downloaded:
    """What was fetched: the commit, and the files' names."""

    commit: str
    files: tuple[str, ...]


def download(repository: str, folder: str | Path, *, revision: str | None = None, progress: Progress | None = None) -> Downloaded:
    """Fetch the checkpoint of `repository` ("owner/name") at `revision` (a branch, tag or commit) into `folder`.

    Files that are there already, of that commit, are kept; a partial one is continued.
    Raises UsageError (names), ResourceError (no huggingface_hub, no room on the disk), QwenAudioError (what the hub says).
    """
    require_paths(folder=folder)
    target = Path(folder)
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise UsageError(f"{shown(repository)} is not the name of a repository, expected owner/name")
    if (target.exists() and not target.is_dir()) or not target.absolute().parent.is_dir():
        raise UsageError(f"{shown(target)} cannot be a folder here; choose another name, in an existing folder")
    hub = _hub()
    about = _asked(lambda: hub.HfApi().model_info(repository, revision=revision, files_metadata=True), repository)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in about.siblings or ()}
    names, commit = wanted_files(sizes, repository), str(about.sha)
    missing = sum(sizes[name] for name in names if not (target / name).exists())
    missing -= sum(path.stat().st_size for path in target.glob(".cache/huggingface/download/**/*.incomplete"))  # continued
    require_disk(target if target.exists() else target.absolute().parent, missing)
    for number, name in enumerate(names, 1):
        if progress:
            progress(name, number, len(names))
        _asked(lambda name=name: hub.hf_hub_download(repository, name, revision=commit, local_dir=target), repository)  # type: ignore[misc]
    return Downloaded(commit, names)


def wanted_files(names: Iterable[str], repository: str) -> tuple[str, ...]:
    """Which files of a repository make a checkpoint, in the order in which they are fetched: small ones first.

    Raises QwenAudioError if there are no weights.
    """
    there = set(names)
    for pattern, single, index in ((_SAFETENSORS, SINGLE_FILE, INDEX_FILE), (_PYTORCH, PYTORCH_FILE, PYTORCH_INDEX)):
        weights = [single] if single in there else sorted(name for name in there if pattern.fullmatch(name))
        if weights:
            small = [name for name in (*COPIED, index) if name in there and (name != index or single not in there)]
            return (*small, *weights)
    raise QwenAudioError(f"repository {shown(repository)} holds neither {SINGLE_FILE} nor {PYTORCH_FILE} nor shards; is it the right one?")


def _hub() -> Any:
    """The package huggingface_hub, which only this file needs."""
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise ResourceError("downloading needs the package huggingface_hub; install it: pip install 'qwenaudio_np[hub]'") from None


def _asked(request: Callable[[], Any], repository: str) -> Any:
    """The answer to a request; whatever the hub or the network says becomes one line."""
    try:
        return request()
    except OSError as failure:  # a full disk; also many errors of the network
        raise ResourceError(f"cannot fetch {shown(repository)}: {_first_line(failure)}") from None
    except Exception as failure:  # the hub's own errors and those of its HTTP library share no base class
        raise QwenAudioError(f"cannot fetch {shown(repository)}: {_first_line(failure)}; check name, revision and network") from None


def _first_line(failure: Exception) -> str:
    lines = str(failure).split("\n")
    return shown(lines[0].strip().rstrip(".")[:300]) if lines[0].strip() else type(failure).__name__
