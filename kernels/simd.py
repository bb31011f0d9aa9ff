"""The instructions that kernels are written in, for Numba: tiles of SIMD registers as types, in LLVM's portable vector code.

A Tile of R rows is R vectors of 16 float32. LLVM maps each to what the CPU has: one AVX-512 register, two of AVX2, four of
SSE or NEON. What an instruction computes is said, in NumPy, by the function of the same name in `simd_python.py`, which also
takes its place where NUMBA_DISABLE_JIT is set. Positions count the elements of flat arrays; nothing is bounds-checked.
LLVM is given no floating-point licence: a product is fused into a sum where these say so and nowhere else, sums keep their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic, models, register_model

from . import simd_python
from . import vector_code as code
from .simd_python import BLOCK, LANES

# Rows of the tile in matrix products: its sums, one row of weights and one value of x must fit into the registers
# (AVX-512 has 32 of 16 values; AVX2 16 of 8, for 6 x 2 sums, 2 of weights and 1 of x).
ROWS = 12 if code.host_has("avx512f") else 6


class Tile(types.Type):
    """`rows` vectors of 16 float32, held as one value."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(name=f"Tile({rows})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Tile) -> None:
        super().__init__(dmm, fe_type, ir.ArrayType(code.VECTOR, fe_type.rows))


def _instruction(definition: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """The decorated function tells Numba types and LLVM code of what `definition` computes."""
    if config.DISABLE_JIT:
        return lambda _: definition
    return intrinsic(prefer_literal=True)


@_instruction(simd_python.zeros)
def zeros(typing: Any, rows: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return Tile(rows.literal_value)(rows), generate


@_instruction(simd_python.prefetch)
def prefetch(typing: Any, array: Any, at: Any, lines: Any, level: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = code.address(context, builder, array, args[0], args[1], code.I8)
        for line in range(lines.literal_value):
            code.prefetch(builder, builder.gep(start, [code.I32(64 * line)]), level.literal_value)
        return context.get_dummy_value()

    return types.void(array, types.intp, lines, level), generate


@_instruction(simd_python.load)
def load(typing: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return code.tile(builder, [code.load(context, builder, signature.args[0], args[0], args[1], LANES)])

    return Tile(1)(array, types.intp), generate


@_instruction(simd_python.store)
def store(typing: Any, tile: Any, array: Any, at: Any, stride: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile_, array_, at_, stride_ = args
        for r in range(tile.rows):
            place = code.address(context, builder, signature.args[1], array_, code.step(builder, at_, stride_, r), code.VECTOR)
            builder.store(builder.extract_value(tile_, r), place).align = 4
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp), generate


@_instruction(simd_python.add_to)
def add_to(typing: Any, tile: Any, array: Any, at: Any, stride: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile_, array_, at_, stride_ = args
        for r in range(tile.rows):
            place = code.address(context, builder, signature.args[1], array_, code.step(builder, at_, stride_, r), code.VECTOR)
            old = builder.load(place)
            old.align = 4
            builder.store(builder.fadd(old, builder.extract_value(tile_, r)), place).align = 4
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp), generate


@_instruction(simd_python.add_row)
def add_row(typing: Any, tile: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = code.load(context, builder, signature.args[1], args[1], args[2], LANES)
        return code.tile(builder, [builder.fadd(builder.extract_value(args[0], r), row) for r in range(tile.rows)])

    return tile(tile, array, types.intp), generate


@_instruction(simd_python.add_outer)
def add_outer(typing: Any, tile: Any, x: Any, at: Any, stride: Any, w: Any, w_at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile_, x_, at_, stride_, w_, w_at_ = args
        weights = code.load(context, builder, signature.args[4], w_, w_at_, LANES)
        rows = []
        for r in range(tile.rows):
            value = builder.load(code.address(context, builder, signature.args[1], x_, code.step(builder, at_, stride_, r), code.F32))
            rows.append(code.fma(builder, code.splat(builder, value), weights, builder.extract_value(tile_, r)))
        return code.tile(builder, rows)

    return tile(tile, x, types.intp, types.intp, w, types.intp), generate


@_instruction(simd_python.add_multiple)
def add_multiple(typing: Any, tile: Any, x: Any, at: Any, w: Any, w_at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = code.splat(builder, builder.load(code.address(context, builder, signature.args[1], args[1], args[2], code.F32)))
        places = [code.step(builder, args[4], args[4].type(LANES), r) for r in range(tile.rows)]
        rows = [code.load(context, builder, signature.args[3], args[3], place, LANES) for place in places]
        return code.tile(builder, [code.fma(builder, value, row, builder.extract_value(args[0], r)) for r, row in enumerate(rows)])

    return tile(tile, x, types.intp, w, types.intp), generate


@_instruction(simd_python.add_dot)
def add_dot(typing: Any, tile: Any, x: Any, at: Any, w: Any, w_at: Any, stride: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile_, x_, at_, w_, w_at_, stride_ = args
        values = code.load(context, builder, signature.args[1], x_, at_, LANES)
        rows = []
        for r in range(tile.rows):
            weights = code.load(context, builder, signature.args[3], w_, code.step(builder, w_at_, stride_, r), LANES)
            rows.append(code.fma(builder, values, weights, builder.extract_value(tile_, r)))
        return code.tile(builder, rows)

    return tile(tile, x, types.intp, w, types.intp, types.intp), generate


@_instruction(simd_python.add)
def add(typing: Any, tile: Any, other: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return code.tile(builder, [builder.fadd(*(builder.extract_value(arg, 0) for arg in args))])

    return tile(tile, other), generate


@_instruction(simd_python.maximum)
def maximum(typing: Any, tile: Any, other: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return code.tile(builder, [code.larger(builder, *(builder.extract_value(arg, 0) for arg in args))])

    return tile(tile, other), generate


@_instruction(simd_python.exp_minus)
def exp_minus(typing: Any, tile: Any, shift: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        difference = builder.fsub(builder.extract_value(args[0], 0), code.splat(builder, args[1]))
        return code.tile(builder, [code.exp_nonpositive(builder, difference)])

    return tile(tile, types.float32), generate


@_instruction(simd_python.exp_nonpositive)
def exp_nonpositive(typing: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return code.exp_nonpositive(builder, args[0])

    return types.float32(types.float32), generate


@_instruction(simd_python.fma)
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return code.fma(builder, *args)

    return types.float32(types.float32, types.float32, types.float32), generate


@_instruction(simd_python.lane_sum)
def lane_sum(typing: Any, tile: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return code.by_halves(builder, builder.extract_value(args[0], 0), builder.fadd)

    return types.float32(tile), generate


@_instruction(simd_python.lane_max)
def lane_max(typing: Any, tile: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return code.by_halves(builder, builder.extract_value(args[0], 0), lambda a, b: code.larger(builder, a, b))

    return types.float32(tile), generate


@_instruction(simd_python.store_sums)
def store_sums(typing: Any, tile: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for r in range(tile.rows):
            total = code.by_halves(builder, builder.extract_value(args[0], r), builder.fadd)
            place = builder.add(args[2], args[2].type(r))
            builder.store(total, code.address(context, builder, signature.args[1], args[1], place, code.F32)).align = 4
        return context.get_dummy_value()

    return types.void(tile, array, types.intp), generate


@_instruction(simd_python.widened)
def widened(typing: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.extract_element(code.load(context, builder, signature.args[0], args[0], args[1], 1), code.I32(0))

    return types.float32(array, types.intp), generate


@_instruction(simd_python.store_as)
def store_as(typing: Any, value: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        stored = code.to_bfloat16(builder, args[0]) if array.dtype == types.uint16 else args[0]
        builder.store(stored, code.address(context, builder, array, args[1], args[2], stored.type))
        return context.get_dummy_value()

    return types.void(types.float32, array, types.intp), generate


@_instruction(simd_python.transpose)
def transpose(typing: Any, array: Any, at: Any, stride: Any, out: Any, out_at: Any, out_stride: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_, at_, stride_, out_, out_at_, out_stride_ = args
        places = [code.step(builder, at_, stride_, i) for i in range(BLOCK)]
        rows = [code.load(context, builder, signature.args[0], array_, place, BLOCK) for place in places]
        for j, column in enumerate(code.transposed(builder, rows)):
            place = code.step(builder, out_at_, out_stride_, j)
            builder.store(column, code.address(context, builder, signature.args[3], out_, place, column.type)).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, out, types.intp, types.intp), generate
