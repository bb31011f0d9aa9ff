"""Which tensor is stored how: the one table behind --weights, and the names under which a quantised tensor lies in a file.

Quantised are the matrices that products with activations read. Word embeddings and the output head stay at 8 bits, because an
error there goes straight to the words. Norms, biases, convolutions, positions and the rows around a clip are small: they stay floats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass

from qwenaudio_np.names import Shape
from qwenaudio_np.quantised import part_shapes

WEIGHTS = ("float32", "bfloat16", "int8", "int4")
FLOAT_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # safetensors' names -> NumPy's

# (tensors, bits with --weights int8, bits with --weights int4); what no row names stays a float.
_TABLE = tuple(
    (re.compile(pattern), {"int8": int8, "int4": int4})
    for pattern, int8, int4 in (
        (r"transformer\.wte\.weight|lm_head\.weight", 8, 8),
        (r"transformer\.h\.\d+\.(attn\.(c_attn|c_proj)|mlp\.(w1|w2|c_proj))\.weight", 8, 4),
        (r"transformer\.audio\.blocks\.\d+\.(attn\.(query|key|value|out)|mlp\.[02])\.weight", 8, 4),
        (r"transformer\.audio\.proj\.weight", 8, 4),
    )
)


def bits_of(name: str, weights: str) -> int | None:
    """How many bits the codes of this tensor have with --weights `weights`; None: it is not quantised."""
    rows = (bits for pattern, bits in _TABLE if pattern.fullmatch(name))
    return next(rows, {}).get(weights)


def can_be_quantised(name: str) -> bool:
    """Whether the table names this tensor."""
    return bits_of(name, "int8") is not None


def planned_bytes(name: str, shape: Shape, stored: int, weights: str | None) -> int:
    """Bytes that a tensor of a file takes with --weights `weights`; `stored` is what it takes as it is."""
    bits = bits_of(name, weights or "")
    if bits is not None:
        return sum(math.prod(part) * (1 if ending == "codes" else 2) for ending, part in part_shapes(matrix(shape), bits).items())
    return {"float32": 4 * math.prod(shape), "bfloat16": 2 * math.prod(shape)}.get(weights or "", stored)


@dataclass(frozen=True)
class Piece:
    """One tensor of a file: its shape, the element types it may have, and the tensor of the model that it is a part of."""

    shape: Shape
    dtypes: tuple[str, ...]
    whole: str


def pieces(tensors: Mapping[str, Shape], there: Container[str]) -> dict[str, Piece]:
    """What must be in the files for the model's `tensors`: each itself or, where `there` has its codes, its parts.

    A part is named after the whole: lm_head.weight.codes, .scales and, with 4 bits, .offsets.
    """
    found: dict[str, Piece] = {}
    for name, shape in tensors.items():
        if name not in there and f"{name}.codes" in there and can_be_quantised(name):
            for ending, part in part_shapes(matrix(shape), stored_bits(name, there)).items():
                found[f"{name}.{ending}"] = Piece(part, ("U8",) if ending == "codes" else ("BF16",), name)
        else:
            found[name] = Piece(shape, tuple(FLOAT_NAMES), name)
    return found


def stored_bits(name: str, there: Container[str]) -> int:
    """Bits of a tensor whose codes are there: only those of 4 bits have offsets."""
    return 4 if f"{name}.offsets" in there else 8


def matrix(shape: Shape) -> tuple[int, int]:
    """The two sizes of a quantised tensor's shape."""
    out, inner = shape
    return out, inner
