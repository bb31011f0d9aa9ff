"""How weights are stored: one table, type -> what becomes of a tensor, row block by row block.

Adding a type is adding an entry. An entry says, for a tensor of any source, which tensors are stored for it and how each is made
from the source's rows; one that stores two tensors for one (values and scales) gets the rows once for each.

All conversions round once, to nearest, ties to even; NaN stays NaN; a finite value that would become infinite is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from qwenaudio_np import backends
from qwenaudio_np.bfloat16 import from_bfloat16, to_bfloat16
from qwenaudio_np.errors import MismatchError, shown
from qwenaudio_np.names import Shape
from qwenaudio_np.quantised import LANES, Quantised, part_shapes
from qwenaudio_np.weight_plan import bits_of

from .safetensors_writer import TensorSpec

Blocks = Iterable[np.ndarray]  # whole rows in order, [some, *shape[1:]], as stored in the source (bfloat16: uint16)

_EXPONENTS = {"F16": (np.uint16, 0x7C00), "BF16": (np.uint16, 0x7F80)}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the output, and how its elements come from the rows of the source."""

    spec: TensorSpec
    encode: Callable[[Blocks], Iterator[np.ndarray]]


WeightType = Callable[[str, str, Shape], list[StoredTensor]]  # (name, dtype of the source, shape) -> what is stored


def _as_float(dtype: str | None) -> WeightType:
    """The entry that stores every tensor as `dtype`, or (None) as it comes."""

    def plan(name: str, source: str, shape: Shape) -> list[StoredTensor]:
        target = dtype or source

        def encode(blocks: Blocks) -> Iterator[np.ndarray]:
            return (rounded(block, source, target, name) for block in blocks)

        return [StoredTensor(TensorSpec(name, target, shape), encode)]

    return plan


def _quantised(weights: str) -> WeightType:
    """The entry that stores codes, scales and offsets of what weight_plan's table names (see FORMAT.md), and the rest as float32."""

    def plan(name: str, source: str, shape: Shape) -> list[StoredTensor]:
        bits = bits_of(name, weights)
        if bits is None:
            return _as_float("F32")(name, source, shape)
        parts = _Parts(name, source, bits)
        return [parts.stored(ending, part) for ending, part in part_shapes((shape[0], shape[1]), bits).items()]

    return plan


class _Parts:
    """The tensors that are stored for a quantised one. Its codes are written first; what comes of it besides (a bit per weight)
    is kept for the parts that follow, so that a tensor is read and quantised once. After a resumed run it may be done again."""

    def __init__(self, name: str, source: str, bits: int) -> None:
        self._name, self._source, self._bits = name, source, bits
        self._kept: dict[str, list[np.ndarray]] = {}

    def stored(self, ending: str, shape: Shape) -> StoredTensor:
        """One of the parts, and how it is made."""
        spec = TensorSpec(f"{self._name}.{ending}", "U8" if ending == "codes" else "BF16", shape)
        return StoredTensor(spec, lambda blocks: self._encode(ending, blocks))

    def _encode(self, ending: str, blocks: Blocks) -> Iterator[np.ndarray]:
        if ending in self._kept:
            yield from self._kept.pop(ending)
            return
        kept: dict[str, list[np.ndarray]] = {}
        for rows in whole_blocks(rounded(block, self._source, "F32", self._name) for block in blocks):
            made = quantise(rows, self._bits).parts
            for other in made.keys() - {"codes", ending}:
                kept.setdefault(other, []).append(made[other])
            yield made[ending]
        if ending == "codes":
            self._kept = kept


def quantise(rows: np.ndarray, bits: int) -> Quantised:
    """`quantised.quantise` by the compiled backend, whose results are the same bit for bit."""
    made: Quantised = backends.compiled().quantise(rows, bits)
    return made


def whole_blocks(blocks: Blocks) -> Iterator[np.ndarray]:
    """The same rows, every block but the last a multiple of 16."""
    left: np.ndarray | None = None
    for block in blocks:
        rows = block if left is None else np.concatenate([left, block])
        whole = len(rows) // LANES * LANES
        if whole:
            yield rows[:whole]
        left = rows[whole:].copy()
    if left is not None and len(left):
        yield left


WEIGHT_TYPES: dict[str, WeightType] = {
    "float32": _as_float("F32"),
    "float16": _as_float("F16"),
    "bfloat16": _as_float("BF16"),
    "int8": _quantised("int8"),
    "int4": _quantised("int4"),
}
AS_STORED = _as_float(None)


def rounded(values: np.ndarray, source: str, target: str, name: str) -> np.ndarray:
    """Values of type `source` as `target`, same shape; F64, F32, F16, BF16 (bits as uint16). Same type: the same bits.

    Raises MismatchError, naming the tensor, where a finite value is too large for `target`.
    """
    if source == target:
        return values
    wide = widened(values, source)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = to_bfloat16(wide) if target == "BF16" else wide.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[target])
    lost = ~finite(narrow, target) & np.isfinite(wide)
    if lost.any():
        raise MismatchError(
            f"tensor {shown(name)} has {int(lost.sum())} values too large for {target}, the largest {np.abs(wide[lost]).max():.6g}; "
            "choose bfloat16 or float32"
        )
    return narrow


def widened(values: np.ndarray, dtype: str) -> np.ndarray:
    """F64 as it is; F32, F16 and BF16 as float32, exactly."""
    if dtype == "BF16":
        return from_bfloat16(values)
    return values if dtype == "F64" else values.astype(np.float32, copy=False)


def finite(values: np.ndarray, dtype: str) -> np.ndarray:
    """Which values are neither NaN nor infinite, bool of the same shape. Half types: by the exponent's bits, all ones is neither."""
    if dtype not in _EXPONENTS:
        return np.isfinite(values)
    unsigned, ones = _EXPONENTS[dtype]
    return (values.view(unsigned) & unsigned(ones)) != ones
