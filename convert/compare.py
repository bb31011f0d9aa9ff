"""Each tensor of a converted folder against its source: rounded or quantised anew, bit for bit, and how far the values are apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from qwenaudio_np.errors import shown
from qwenaudio_np.names import AUDIO_PREFIX, EMBEDDING, OUTPUT_HEAD, is_ignored
from qwenaudio_np.quantised import Quantised, dequantise, part_shapes
from qwenaudio_np.weight_plan import matrix

from . import names
from .progress import Advance
from .weight_source import WHISPER, SourceTensor, WeightSource, open_weights, same_place
from .weight_types import quantise, rounded, whole_blocks, widened

PARTS = ("codes", "scales", "offsets")


@dataclass(frozen=True)
class Difference:
    """How far a stored tensor is from its source, in the source's own units."""

    name: str
    largest: float
    mean: float


class Findings(Protocol):
    """What a comparison adds to: see verify.Report."""

    compared: int
    problems: list[str]
    differences: list[Difference]


def compare(stored: WeightSource, path: Path, manifest: dict[str, Any] | None, report: Findings, advance: Advance) -> None:
    """Every stored tensor against the source at `path`, and every tensor of the source must be stored, or known to be left out.

    After a graft, a source is asked for its own part alone: encoder or decoder.
    """
    grafted = manifest is not None and "audio_from" in manifest["options"]
    with open_weights(path) as source:
        family = names.WHISPER if source.kind == WHISPER else names.QWEN
        for name, parts in _by_tensor(stored.tensors).items():
            upstream = names.to_upstream(family, name)
            if grafted and name.startswith(AUDIO_PREFIX) != (family == names.WHISPER):
                continue
            if upstream in source.tensors:
                if "" in parts:
                    _compare_tensor(name, parts[""], source.tensors[upstream], grafted, report, advance)
                else:
                    _compare_quantised(name, parts, source.tensors[upstream], report, advance)
            elif family == names.QWEN:
                report.problems.append(f"tensor {shown(name)} is not in {shown(path)}; is it the source?")
        if not report.compared:
            report.problems.append(f"{shown(path)} has no tensor in common with the checkpoint; is it the source?")
            return
        for upstream in _lost(source, family, stored.tensors, manifest, grafted):
            report.problems.append(f"tensor {shown(upstream)} of {shown(path)} is not in the checkpoint; is it the source?")


def _lost(
    source: WeightSource, family: str, stored: Mapping[str, SourceTensor], manifest: dict[str, Any] | None, grafted: bool
) -> Iterator[str]:
    """Upstream names of tensors that a conversion would have kept, and that are not there."""
    there, dropped = _by_tensor(stored), manifest.get("dropped") if manifest else None
    left_out = list(dropped) if type(dropped) is list else []
    if same_place(source.tensors.get(OUTPUT_HEAD), source.tensors.get(EMBEDDING)):
        left_out.append(OUTPUT_HEAD)  # tied
    for upstream in source.tensors:
        name = names.from_upstream(family, upstream)
        replaced = grafted and family == names.QWEN and name is not None and name.startswith(AUDIO_PREFIX)
        if name is not None and name not in there and not replaced and name not in left_out and not is_ignored(name):
            yield upstream


def _compare_tensor(name: str, stored: SourceTensor, source: SourceTensor, grown: bool, report: Findings, advance: Advance) -> None:
    """The source's elements, rounded, against the stored ones. A vocabulary that has `grown` has more rows, behind the source's."""
    report.compared += 1
    if stored.shape != source.shape and not (grown and stored.shape[1:] == source.shape[1:] and stored.shape[0] >= source.shape[0]):
        report.problems.append(f"tensor {shown(name)} is {list(stored.shape)}, its source is {list(source.shape)}")
        return
    equal, largest, total = True, 0.0, 0.0
    found = _Elements(stored.rows())
    for block in source.rows():
        original = block.ravel()
        values = found.take(original.size)
        equal &= values.tobytes() == rounded(original, source.dtype, stored.dtype, name).tobytes()
        with np.errstate(invalid="ignore"):  # infinity less infinity; NaN has been reported already
            error = np.abs(widened(values, stored.dtype).astype(np.float64) - widened(original, source.dtype))
        largest, total = max(largest, float(np.nanmax(error, initial=0.0))), total + float(np.nansum(error))
        advance(values.nbytes)
    if not equal:
        report.problems.append(f"tensor {shown(name)} is not its source rounded to {stored.dtype}; the largest difference is {largest:.6g}")
    if largest:
        report.differences.append(Difference(name, largest, total / math.prod(source.shape)))


def _by_tensor(stored: Mapping[str, SourceTensor]) -> dict[str, dict[str, SourceTensor]]:
    """Tensor of the model -> what is stored for it: "" for itself, or its codes, scales and offsets."""
    found: dict[str, dict[str, SourceTensor]] = {}
    for name, tensor in stored.items():
        whole, _, ending = name.rpartition(".")
        if ending in PARTS and f"{whole}.codes" in stored:
            found.setdefault(whole, {})[ending] = tensor
        else:
            found[name] = {"": tensor}
    return found


def _compare_quantised(name: str, parts: Mapping[str, SourceTensor], source: SourceTensor, report: Findings, advance: Advance) -> None:
    """The source, quantised anew, against the stored codes, scales and offsets; and how far what they stand for is from the source."""
    report.compared += 1
    bits = 4 if "offsets" in parts else 8
    if len(source.shape) != 2 or any(parts[ending].shape != shape for ending, shape in part_shapes(matrix(source.shape), bits).items()):
        report.problems.append(f"the codes of tensor {shown(name)} do not fit its source, which is {list(source.shape)}")
        return
    found = {ending: _Elements(tensor.rows()) for ending, tensor in parts.items()}
    equal, largest, total = True, 0.0, 0.0
    for rows in whole_blocks(rounded(block, source.dtype, "F32", name) for block in source.rows()):
        made = quantise(rows, bits)
        stored = {ending: found[ending].take(part.size).reshape(part.shape) for ending, part in made.parts.items()}
        equal &= all(stored[ending].tobytes() == part.tobytes() for ending, part in made.parts.items())
        kept = Quantised(bits, made.shape, stored["codes"], stored["scales"], stored.get("offsets"))
        error = np.abs(dequantise(kept).astype(np.float64) - rows)
        largest, total = max(largest, float(np.nanmax(error, initial=0.0))), total + float(np.nansum(error))
        advance(sum(part.nbytes for part in made.parts.values()))
    if not equal:
        report.problems.append(f"tensor {shown(name)} is not its source quantised to {bits} bits; the largest difference is {largest:.6g}")
    report.differences.append(Difference(name, largest, total / math.prod(source.shape)))


class _Elements:
    """A tensor's elements in order, as many at a time as are asked for: two tensors need not come in equal blocks."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._held: np.ndarray | None = None

    def take(self, count: int) -> np.ndarray:
        """The next `count` elements, [count]."""
        parts: list[np.ndarray] = []
        while count:
            if self._held is None:
                self._held = next(self._blocks).ravel()
            part, rest = self._held[:count], self._held[count:]
            self._held = rest if rest.size else None
            parts.append(part)
            count -= part.size
        return np.concatenate(parts)
