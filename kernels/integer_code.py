"""LLVM code for sums of products of small whole numbers: one group of 32 columns, 16 rows of weights, several rows of activations.

The same sums three ways, by `isa` (isa.EMULATED is the plain way in the tiles of avx512vnni). A quad is 4 columns; a lane holds the quad
of one row. Weights come as registers of 64 bytes (16 rows), activations as the 4 bytes of a quad, repeated for every lane.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .simd_python import LANES
from .vector_code import F32, I32, ROUNDER, VECTOR, by_halves, call, shuffle, splat

WORDS = ir.VectorType(I32, LANES)
HALF, SHORTS, BYTES = (ir.VectorType(ir.IntType(size), 256 // size) for size in (32, 16, 8))  # one register of AVX2
PSIGN, PMADDUBSW, PMADDWD = "llvm.x86.avx2.psign.b", "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"
QUADS = 8  # in a group
LARGEST_FINITE = 0x7F7FFFFF  # bits of float32

Load = Callable[[int], Any]  # quad -> the 4 bytes, as one int32


def rounded(builder: Any, halves: list[Any]) -> tuple[Any, Any, Any]:
    """Two vectors of 16 float32 -> their 32 codes as int8, their scale, the sum of the codes.

    Magnitudes are ordered like their bits, infinity and NaN above all. A code is read from the lowest bits of 1.5 * 2^23 + value.
    """
    sizes = [builder.and_(builder.bitcast(half, WORDS), ir.Constant(WORDS, [0x7FFFFFFF] * LANES)) for half in halves]
    highest = by_halves(builder, _larger(builder, *sizes), lambda a, b: _larger(builder, a, b))
    largest, most = builder.bitcast(highest, F32), F32(127.0)
    inverse = builder.fdiv(most, largest)
    finite = builder.icmp_signed("<=", highest, I32(LARGEST_FINITE))
    usable = builder.and_(finite, builder.fcmp_ordered("<", inverse, F32(math.inf)))
    zeros, rounder = ir.Constant(VECTOR, None), ir.Constant(VECTOR, [ROUNDER] * LANES)
    codes = []
    for half in halves:
        value = builder.select(usable, builder.fmul(half, splat(builder, inverse)), zeros)
        codes.append(builder.sub(builder.bitcast(builder.fadd(value, rounder), WORDS), builder.bitcast(rounder, WORDS)))
    total = by_halves(builder, builder.add(*codes), builder.add)
    scale = builder.select(usable, builder.fdiv(largest, most), builder.select(finite, F32(0.0), F32(math.nan)))
    return builder.trunc(shuffle(builder, codes[0], codes[1], range(2 * LANES)), ir.VectorType(ir.IntType(8), 2 * LANES)), scale, total


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def group_sums(builder: Any, isa: str, bits: int, weights: list[Any], activations: list[Load], starts: list[Any]) -> list[Any]:
    """Per row of activations a vector of 16 int32: the sums over the group's 32 columns of code times code.

    weights: 8 (int8) or 4 (int4) vectors of 16 int32, as stored; starts: -128 times the sum of each row's 32 codes, int32.
    """
    if isa == "avx2":
        return _avx2(builder, bits, weights, activations)
    # vpdpbusd wants weights without sign: int8 codes go up by 128, which `starts` take back.
    sums = [splat(builder, start, WORDS) if bits == 8 else ir.Constant(WORDS, None) for start in starts]
    dot4 = _vpdpbusd if isa == "avx512vnni" else _dot4
    for quad in range(QUADS):
        codes = _unsigned_quad(builder, bits, weights, quad)
        sums = [dot4(builder, total, codes, row(quad)) for total, row in zip(sums, activations, strict=True)]
    return sums


def _unsigned_quad(builder: Any, bits: int, weights: list[Any], quad: int) -> Any:
    """16 x 4 codes of one quad as bytes from 0 to 255, in int32 lanes."""
    if bits == 8:
        return builder.xor(weights[quad], ir.Constant(WORDS, [0x80808080] * LANES))
    return _nibbles(builder, weights[quad // 2], quad % 2)


def _nibbles(builder: Any, bytes_: Any, high: int) -> Any:
    """The low or the high halves of bytes, in int32 lanes."""
    count = bytes_.type.count
    moved = builder.lshr(bytes_, ir.Constant(bytes_.type, [4] * count)) if high else bytes_
    return builder.and_(moved, ir.Constant(bytes_.type, [0x0F0F0F0F] * count))


def _vpdpbusd(builder: Any, total: Any, codes: Any, quad: Any) -> Any:
    """total + 4 products, unsigned times signed byte, in every lane: one instruction."""
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", WORDS, [total, codes, splat(builder, quad, WORDS)])


def _dot4(builder: Any, total: Any, codes: Any, quad: Any) -> Any:
    """What vpdpbusd computes, for any CPU: bytes from 0 to 255 times bytes from -128 to 127, summed in 32 bits without saturation."""
    for shift in (0, 8, 16, 24):
        code = builder.and_(builder.lshr(codes, ir.Constant(WORDS, [shift] * LANES)), ir.Constant(WORDS, [0xFF] * LANES))
        value = builder.ashr(builder.shl(quad, I32(24 - shift)), I32(24))
        total = builder.add(total, builder.mul(code, splat(builder, value, WORDS)))
    return total


def _avx2(builder: Any, bits: int, weights: list[Any], activations: list[Load]) -> list[Any]:
    """In halves of 8 rows of weights, one register each.

    vpmaddubsw multiplies bytes, unsigned times signed, and adds neighbours in 16 bits. int4: at most 2 * 15 * 127 = 3810 each, so
    that all 8 quads fit into 16 bits. int8: the weight's sign goes to the activation; 2 * 127 * 127 fits, but only once. So int8
    takes three multiplications where int4 takes one. Two other ways, in C, were at most 6 % faster: weights widened to 16 bits and
    vpmaddwd alone, and codes in two halves of 4 bits, each summed like int4.
    """
    ones = ir.Constant(SHORTS, [1] * SHORTS.count)
    sums = [[ir.Constant(SHORTS if bits == 4 else HALF, None)] * 2 for _ in activations]
    for quad in range(QUADS):
        register = _nibbles(builder, weights[quad // 2], quad % 2) if bits == 4 else weights[quad]
        codes = [builder.bitcast(shuffle(builder, register, register, half), BYTES) for half in (range(8), range(8, 16))]
        sizes = codes if bits == 4 else [call(builder, PSIGN, BYTES, [code, code]) for code in codes]
        for row, load in enumerate(activations):
            values = builder.bitcast(splat(builder, load(quad), HALF), BYTES)
            for half in (0, 1):
                signed = values if bits == 4 else call(builder, PSIGN, BYTES, [values, codes[half]])
                pairs = call(builder, PMADDUBSW, SHORTS, [sizes[half], signed])
                added = pairs if bits == 4 else call(builder, PMADDWD, HALF, [pairs, ones])
                sums[row][half] = _in_order(builder, builder.add(sums[row][half], added))
    if bits == 4:
        sums = [[call(builder, PMADDWD, HALF, [half, ones]) for half in halves] for halves in sums]
    return [shuffle(builder, low, high, range(LANES)) for low, high in sums]


def _in_order(builder: Any, register: Any) -> Any:
    """The same value, behind an empty piece of assembly: LLVM would sort the additions anew, by rows, and run out of registers."""
    return builder.asm(ir.FunctionType(register.type, [register.type]), "", "=x,0", [register], True)
