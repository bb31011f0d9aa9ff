"""Is a checkpoint folder what it should be? Every byte hashed, every value looked at, and each tensor compared with its source.

Faults of the folder are collected, not raised: a report with all of them says more than the first one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from qwenaudio_np.checkpoint import Shards
from qwenaudio_np.config import ENCODER_TYPE, load_config, read_json
from qwenaudio_np.errors import QwenAudioError, UsageError, shown
from qwenaudio_np.names import Shape, expected_tensors, optional_tensors
from qwenaudio_np.shards import MANIFEST
from qwenaudio_np.vocabulary import VOCABULARY_FILE
from qwenaudio_np.weight_plan import pieces

from . import names
from .compare import Difference, compare
from .manifest import is_intact, load_manifest
from .progress import Advance, Progress, counted
from .recipe import CONFIG, encoder_dims, require_tensors
from .request import require_paths
from .weight_source import SAFETENSORS, SourceTensor, WeightSource, open_weights
from .weight_types import finite


@dataclass
class Report:
    """`problems` in the order found; none: the folder is good. `differences`: tensors whose values are not the source's, with `against`."""

    tensors: int = 0
    files: int = 0
    hashed: bool = False  # a manifest was there to compare with
    compared: int = 0  # tensors compared with the source
    problems: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_checkpoint(folder: str | Path, against: str | Path | None = None, progress: Progress | None = None) -> Report:
    """Check hashes (where there is a manifest), names, shapes, types and finite values; with `against`, equality with a source.

    A tensor equals its source if it is the source's, rounded to the stored type, or quantised, bit for bit.
    Raises UsageError (no such folder, an empty name) and the errors of open_weights for `against`; everything else is in the report.
    """
    require_paths(folder=folder, against=against)
    path, report = Path(folder), Report()
    if not path.is_dir():
        raise UsageError(f"{shown(path)} is not a folder, expected a checkpoint folder")
    try:
        manifest = load_manifest(path)
        with open_weights(path, SAFETENSORS) as stored:
            passes = 1 + (manifest is not None) + (against is not None)
            advance = counted(progress, passes * sum(file.size for file in stored.files))
            small = _check_names(path, stored, report)
            _check_listed(path, stored, small, manifest, report)
            _check_files(path, stored, manifest, report, advance)
            if against is not None:
                compare(stored, Path(against), manifest, report, advance)
    except UsageError:
        raise
    except QwenAudioError as error:
        report.problems.append(str(error))
    return report


def _check_names(folder: Path, stored: WeightSource, report: Report) -> tuple[str, ...]:
    """Names, shapes and types against config.json. Returns the small files that such a model needs."""
    report.tensors, report.files = len(stored.tensors), len(stored.files)
    fields = read_json(folder / CONFIG)
    if fields.get("model_type") == ENCODER_TYPE:
        _require_pieces(stored, names.encoder_tensors(encoder_dims(fields, str(folder / CONFIG))), {})
        return (CONFIG,)
    config = load_config(folder)
    Shards(folder)  # the loader's own idea of which files count
    _require_pieces(stored, expected_tensors(config), optional_tensors(config))
    return CONFIG, VOCABULARY_FILE


def _require_pieces(stored: WeightSource, expected: Mapping[str, Shape], optional: Mapping[str, Shape]) -> None:
    """Each tensor of the model, or its codes, scales and offsets."""
    wanted, extra = pieces(expected, stored.tensors), pieces(optional, stored.tensors)
    asked, more = ({name: piece.shape for name, piece in found.items()} for found in (wanted, extra))
    require_tensors(stored.tensors, asked, more, {name: piece.dtypes for name, piece in (wanted | extra).items()})


def _check_files(folder: Path, stored: WeightSource, manifest: dict[str, Any] | None, report: Report, advance: Advance) -> None:
    """One pass over every weight file: its hash, its tensors' hashes, its values; then the small files."""
    entries = manifest["files"] if manifest else {}
    report.hashed = manifest is not None
    known = {file.path.name: file for file in stored.files}
    for name, entry in entries.items():
        if name in known:
            if known[name].size != entry.get("bytes") or known[name].sha256(advance=advance) != entry.get("sha256"):
                report.problems.append(f"{shown(name)} is not the file that {MANIFEST} describes; convert the checkpoint again")
        elif "/" in name or not is_intact(folder / name, entry):
            report.problems.append(f"{shown(name)} is missing or not the file that {MANIFEST} describes; convert the checkpoint again")
    for name, tensor in stored.tensors.items():
        _check_tensor(name, tensor, manifest["tensors"] if manifest else None, report, advance)


def _check_listed(folder: Path, stored: WeightSource, small: tuple[str, ...], manifest: dict[str, Any] | None, report: Report) -> None:
    """What the folder needs and what the manifest names must both be there."""
    entries = manifest["files"] if manifest else {}
    needed = (*(file.path.name for file in stored.files), *small)
    for name in needed:
        if manifest and name not in entries:
            report.problems.append(f"{shown(name)} is not named in {MANIFEST}; convert the checkpoint again")
        elif name not in entries and not (folder / name).is_file():
            report.problems.append(f"{shown(name)} is missing; convert the checkpoint again")
    for name in manifest["tensors"] if manifest else ():
        if name not in stored.tensors:
            report.problems.append(f"tensor {shown(name)} is named in {MANIFEST}, but in no file; convert the checkpoint again")


def _check_tensor(name: str, tensor: SourceTensor, entries: dict[str, Any] | None, report: Report, advance: Advance) -> None:
    digest, odd = sha256(), 0
    for block in tensor.rows():
        digest.update(block.data)
        odd += int(block.size - np.count_nonzero(finite(block, tensor.dtype)))
        advance(block.nbytes)
    if odd:
        report.problems.append(f"tensor {shown(name)} holds {odd} values that are NaN or infinite")
    stated = {"shape": list(tensor.shape), "dtype": tensor.dtype, "sha256": digest.hexdigest()}
    if entries is not None and entries.get(name) != stated:
        report.problems.append(f"tensor {shown(name)} is not the one that {MANIFEST} describes; convert the checkpoint again")
