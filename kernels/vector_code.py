"""LLVM code for vectors, in small pieces: what the instructions of `simd.py` are made of.

`builder` appends one LLVM instruction per call to the function being compiled. Values are vectors of float32, or one float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from . import isa
from .simd_python import LANES

I8, I32, F32 = ir.IntType(8), ir.IntType(32), ir.FloatType()
VECTOR = ir.VectorType(F32, LANES)


def host_has(feature: str) -> bool:
    """Whether code compiled here may use a feature of the CPU, by LLVM's name for it."""
    return feature in isa.features()


# --- memory -----------------------------------------------------------------------------------------------------------------


def step(builder: Any, at: Any, stride: Any, count: int) -> Any:
    """at + count * stride"""
    return builder.add(at, builder.mul(stride, stride.type(count)))


def address(context: Any, builder: Any, array_type: Any, array: Any, at: Any, pointee: Any) -> Any:
    """Pointer to array[at], to be read or written as `pointee`."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), pointee.as_pointer())


def load(context: Any, builder: Any, array_type: Any, array: Any, at: Any, lanes: int) -> Any:
    """A vector of `lanes` stored values, widened to float32."""
    stored = ir.VectorType(context.get_data_type(array_type.dtype), lanes)
    raw = builder.load(address(context, builder, array_type, array, at, stored))
    raw.align = array_type.dtype.bitwidth // 8
    return _WIDEN[array_type.dtype](builder, raw)


def prefetch(builder: Any, place: Any, level: int) -> None:
    """Bring the cache line of an address near: into the first-level cache for one reading, past the others, or into the second-level one.

    No address is wrong.
    """
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [place, I32(0), I32({1: 0, 2: 2}[level]), I32(1)])  # LLVM's localities: 0 is prefetchnta, 2 prefetcht1


# --- vectors ----------------------------------------------------------------------------------------------------------------


def tile(builder: Any, rows: list[Any]) -> Any:
    """Vectors -> one value that holds them all."""
    whole = ir.Constant(ir.ArrayType(rows[0].type, len(rows)), ir.Undefined)
    for r, row in enumerate(rows):
        whole = builder.insert_value(whole, row, r)
    return whole


def splat(builder: Any, scalar: Any, kind: Any = VECTOR) -> Any:
    """A vector full of one value."""
    undefined = ir.Constant(kind, ir.Undefined)
    return shuffle(builder, builder.insert_element(undefined, scalar, I32(0)), undefined, [0] * kind.count)


def call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Call an LLVM intrinsic."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    suffix = f"v{a.type.count}f32" if isinstance(a.type, ir.VectorType) else "f32"
    return call(builder, f"llvm.fma.{suffix}", a.type, [a, b, c])


def larger(builder: Any, a: Any, b: Any) -> Any:
    """The larger of the two; `a` where either is NaN."""
    return builder.select(builder.fcmp_unordered(">=", a, b), a, b)


def by_halves(builder: Any, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """The lower half combined with the upper half, and so on until one value is left."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        lower, upper = (shuffle(builder, vector, vector, range(start, start + half)) for start in (0, half))
        vector = combine(lower, upper)
    return builder.extract_element(vector, I32(0))


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """8 rows of 8 values, transposed, by steps that a register of two halves of 4 values takes in one instruction each.

    Rows a, b, ... h. First a0 b0 a1 b1 | a4 b4 a5 b5 and a2 b2 a3 b3 | a6 b6 a7 b7 (and c with d, ...), then a0 b0 c0 d0 | a4 b4 c4 d4
    and so on, then whole columns.
    """
    singles = _exchanged(builder, rows, 1, [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15])
    pairs = _exchanged(builder, singles, 2, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15])
    columns = _exchanged(builder, pairs, 4, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
    return [columns[i] for i in (0, 2, 1, 3, 4, 6, 5, 7)]


def _exchanged(builder: Any, rows: list[Any], distance: int, first: list[int], second: list[int]) -> list[Any]:
    """Each pair of rows so far apart is replaced by two shuffles of it."""
    new = list(rows)
    for i in (i for i in range(len(rows)) if not i & distance):
        a, b = rows[i], rows[i + distance]
        new[i], new[i + distance] = shuffle(builder, a, b, first), shuffle(builder, a, b, second)
    return new


def shuffle(builder: Any, a: Any, b: Any, picks: Iterable[int]) -> Any:
    """The elements with these numbers, counted through `a` and then `b`."""
    numbers = list(picks)
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(numbers)), numbers))


def _like(shape: Any, element: Any) -> Any:
    """The type of `shape` (a vector or one value) with other elements."""
    return ir.VectorType(element, shape.type.count) if isinstance(shape.type, ir.VectorType) else element


def _full(kind: Any, value: float) -> Any:
    """A constant of type `kind`, in every place if that is a vector."""
    return ir.Constant(kind, [value] * kind.count) if isinstance(kind, ir.VectorType) else ir.Constant(kind, value)


# --- widening stored weights: exact, but for float64, which is rounded --------------------------------------------------------


def _from_bfloat16(builder: Any, raw: Any) -> Any:
    """A bfloat16 is the upper half of a float32."""
    wide = _like(raw, I32)
    return builder.bitcast(builder.shl(builder.zext(raw, wide), _full(wide, 16)), _like(raw, F32))


def _from_float16(builder: Any, raw: Any) -> Any:
    """By the CPU where it can; else in integers, because LLVM would call a library that may not be there."""
    if host_has("f16c") or host_has("neon"):
        return builder.fpext(builder.bitcast(raw, _like(raw, ir.HalfType())), _like(raw, F32))
    return from_float16_by_hand(builder, raw)


def from_float16_by_hand(builder: Any, raw: Any) -> Any:
    """Exponent and fraction 13 bits up, then times 2^112: exponents count from 15 in one and 127 in the other; denormals become normal."""
    wide, floats = _like(raw, I32), _like(raw, F32)
    bits = builder.zext(raw, wide)
    magnitude = builder.shl(builder.and_(bits, _full(wide, 0x7FFF)), _full(wide, 13))
    scaled = builder.bitcast(builder.fmul(builder.bitcast(magnitude, floats), _full(floats, 2.0**112)), wide)
    special = builder.icmp_unsigned(">=", magnitude, _full(wide, 0x7C00 << 13))  # infinity and NaN: the exponent is all ones
    whole = builder.select(special, builder.or_(magnitude, _full(wide, 0x7F800000)), scaled)
    sign = builder.shl(builder.and_(bits, _full(wide, 0x8000)), _full(wide, 16))
    return builder.bitcast(builder.or_(whole, sign), floats)


_WIDEN: dict[Any, Callable[[Any, Any], Any]] = {
    types.float32: lambda builder, raw: raw,
    types.float64: lambda builder, raw: builder.fptrunc(raw, _like(raw, F32)),
    types.int16: _from_float16,  # see arrays.py
    types.uint16: _from_bfloat16,
}


def to_bfloat16(builder: Any, value: Any) -> Any:
    """A float32 rounded to the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = builder.bitcast(value, I32)
    odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
    near = builder.trunc(builder.lshr(builder.add(bits, builder.add(odd, I32(0x7FFF))), I32(16)), ir.IntType(16))
    return builder.select(builder.fcmp_unordered("uno", value, value), ir.IntType(16)(0x7FC0), near)


# --- the exponential ----------------------------------------------------------------------------------------------------------

LN2_HIGH = 0.693359375  # 9 bits of ln 2, so that n * LN2_HIGH is exact
LN2_LOW = math.log(2) - LN2_HIGH
ROUNDER = 1.5 * 2.0**23  # adding it to a float32 leaves the nearest whole number in the lowest bits
LOWEST = -87.33654  # the logarithm of the smallest normal float32


def exp_nonpositive(builder: Any, x: Any) -> Any:
    """e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2, e^r by its Taylor series up to r^7 (the rest is below 6e-9)."""
    kind, integers = x.type, _like(x, I32)
    shifted = fma(builder, x, _full(kind, 1 / math.log(2)), _full(kind, ROUNDER))
    n = builder.fsub(shifted, _full(kind, ROUNDER))
    r = fma(builder, n, _full(kind, -LN2_LOW), fma(builder, n, _full(kind, -LN2_HIGH), x))
    series = _full(kind, 1 / math.factorial(7))
    for power in range(6, -1, -1):
        series = fma(builder, series, r, _full(kind, 1 / math.factorial(power)))
    exponent = builder.shl(builder.bitcast(shifted, integers), _full(integers, 23))
    scaled = builder.bitcast(builder.add(builder.bitcast(series, integers), exponent), kind)
    proper = builder.select(builder.fcmp_ordered("ord", x, x), scaled, x)  # NaN stays NaN
    return builder.select(builder.fcmp_ordered("<", x, _full(kind, LOWEST)), _full(kind, 0.0), proper)
