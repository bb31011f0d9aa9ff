"""Instructions on small whole numbers, in the manner of `simd.py`: sums of products of codes, and how they join a tile of float32."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from qwenaudio_np.quantised import GROUP

from . import integer_code, simd_python
from . import vector_code as code
from .simd import _instruction
from .simd_python import LANES


class Sums(types.Type):
    """`rows` vectors of 16 int32, held as one value."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(name=f"Sums({rows})")


@register_model(Sums)
class _SumsModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Sums) -> None:
        super().__init__(dmm, fe_type, ir.ArrayType(integer_code.WORDS, fe_type.rows))


@_instruction(simd_python.round_group)
def round_group(typing: Any, x: Any, x_at: Any, codes: Any, scales: Any, starts: Any, totals: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_, x_at_, codes_, scales_, starts_, totals_, at_ = args
        halves = [code.load(context, builder, x, x_, code.step(builder, x_at_, x_at_.type(LANES), i), LANES) for i in (0, 1)]
        rounded, scale, total = integer_code.rounded(builder, halves)
        start = builder.mul(total, code.I32(-128))
        share = builder.fmul(builder.sitofp(total, code.F32), scale)
        to = builder.mul(at_, at_.type(GROUP))
        written = (codes_, codes, to, rounded), (scales_, scales, at_, scale), (starts_, starts, at_, start), (totals_, totals, at_, share)
        for array, kind, place, value in written:
            builder.store(value, code.address(context, builder, kind, array, place, value.type)).align = 1
        return context.get_dummy_value()

    return types.void(x, types.intp, codes, scales, starts, totals, types.intp), generate


@_instruction(simd_python.group_sums)
def group_sums(
    typing: Any, rows: Any, bits: Any, isa: Any, codes: Any, at: Any, x: Any, x_at: Any, x_stride: Any,
    starts: Any, s_at: Any, s_stride: Any,
) -> Any:  # fmt: skip
    width, how = bits.literal_value, isa.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes_, at_, x_, x_at_, x_stride_, starts_, s_at_, s_stride_ = args[3:]
        kinds, words = signature.args, integer_code.WORDS

        def read(i: int, array: Any, place: Any, kind: Any) -> Any:
            value = builder.load(code.address(context, builder, kinds[i], array, place, kind))
            value.align = 1
            return value

        def quads(r: int) -> Any:
            start = code.step(builder, x_at_, x_stride_, r)
            return lambda quad: read(5, x_, builder.add(start, start.type(4 * quad)), code.I32)

        weights = [read(3, codes_, builder.add(at_, at_.type(64 * i)), words) for i in range(width)]
        counted = range(rows.literal_value)
        begin = [read(8, starts_, code.step(builder, s_at_, s_stride_, r), code.I32) for r in counted]
        return code.tile(builder, integer_code.group_sums(builder, how, width, weights, [quads(r) for r in counted], begin))

    place = types.intp
    return Sums(rows.literal_value)(rows, bits, isa, codes, place, x, place, place, starts, place, place), generate


@_instruction(simd_python.add_scaled)
def add_scaled(typing: Any, tile: Any, sums: Any, scales: Any, at: Any, x: Any, x_at: Any, x_stride: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile_, sums_, scales_, at_, x_, x_at_, x_stride_ = args
        weights = code.load(context, builder, signature.args[2], scales_, at_, LANES)
        rows = []
        for r in range(tile.rows):
            value = builder.load(code.address(context, builder, signature.args[4], x_, code.step(builder, x_at_, x_stride_, r), code.F32))
            sums = builder.sitofp(builder.extract_value(sums_, r), code.VECTOR)
            rows.append(code.fma(builder, sums, builder.fmul(weights, code.splat(builder, value)), builder.extract_value(tile_, r)))
        return code.tile(builder, rows)

    return tile(tile, sums, scales, types.intp, x, types.intp, types.intp), generate
