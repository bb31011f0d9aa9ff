"""Conversions between float types: one rounding, to nearest even, NaN kept, overflow an error."""

from __future__ import annotations

import math
import random
import struct
from fractions import Fraction

import numpy as np
import pytest

from qwenaudio_np.convert.weight_types import AS_STORED, WEIGHT_TYPES, finite, rounded, widened
from qwenaudio_np.errors import MismatchError
from qwenaudio_np.quantised import quantise
from qwenaudio_np.recoding import recoded

LARGEST_BFLOAT16 = float.fromhex("0x1.fep127")


def bfloat16_value(bits: int) -> float:
    """What 16 bits mean: sign, 8 bits of exponent, 7 of mantissa."""
    return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])


def nearest_bfloat16(value: float) -> int:
    """Naive twin: of all neighbours the nearest in exact arithmetic, the even one of two; found by bisection over the bits."""
    sign = 0x8000 if math.copysign(1.0, value) < 0 else 0
    size = abs(value)
    low, high = 0, 0x7F7F
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bfloat16_value(middle) <= size else (low, middle)
    down, up = (Fraction(size) - Fraction(bfloat16_value(low)), Fraction(bfloat16_value(high)) - Fraction(size))
    return sign | (low if down < up or (down == up and low % 2 == 0) else high)


def hard_values() -> list[float]:
    """Halfway cases, their neighbours, subnormals, signed zeros, and values of every size."""
    rng = random.Random(3)
    values = [0.0, -0.0, 1.0, LARGEST_BFLOAT16, 1e-45, 1e-40, -1e-39, 2.0**-133, 2.0**-134, 3 * 2.0**-134]
    for bits in [rng.randrange(0x7F7F) for _ in range(300)]:
        low, high = bfloat16_value(bits), bfloat16_value(bits + 1)
        half = (low + high) / 2
        values += [low, half, half * (1 + 2**-50), half * (1 - 2**-50), half * (1 + 2**-24), -half]
    return values + [rng.uniform(-1, 1) * 2.0 ** rng.randint(-140, 126) for _ in range(500)]


@pytest.mark.parametrize("source", ["F32", "F64"])
def test_to_bfloat16_against_exact_arithmetic(source: str) -> None:
    values = np.array(hard_values(), {"F32": np.float32, "F64": np.float64}[source])
    found = rounded(values, source, "BF16", "w")
    assert found.dtype == np.uint16
    assert found.tolist() == [nearest_bfloat16(float(value)) for value in values]


def test_worked_examples() -> None:
    """1 + 2^-8 lies halfway between 1 and 1 + 2^-7: to the even one, 1. A little more goes up."""
    values = np.array([1 + 2**-8, 1 + 2**-8 + 2**-20, 1 + 3 * 2**-8, -1 - 2**-8], np.float32)
    assert [hex(bits) for bits in rounded(values, "F32", "BF16", "w")] == ["0x3f80", "0x3f81", "0x3f82", "0xbf80"]


def test_float64_is_rounded_once() -> None:
    """1 + 2^-8 + 2^-40 is above the middle; by way of float32 it would become the middle, and then 1."""
    values = np.array([[1 + 2**-8 + 2**-40]])
    assert hex(rounded(values, "F64", "BF16", "w")[0, 0]) == "0x3f81"
    assert hex(np.asarray(recoded({"w": values}, "bfloat16", quantise)["w"])[0, 0]) == "0x3f81"  # while loading


@pytest.mark.parametrize("target", ["F32", "F16", "BF16"])
def test_nan_and_infinity_stay(target: str) -> None:
    for nan_bits in (0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF):
        values = np.array([nan_bits, 0x7F800000, 0xFF800000], np.uint32).view(np.float32)
        wide = widened(rounded(values, "F32", target, "w"), target)
        assert np.isnan(wide[0]) and wide[1:].tolist() == [math.inf, -math.inf]


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_the_same_type_keeps_every_bit(dtype: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = {"F64": np.resize(bits, 1 << 18).view(np.float64), "F32": np.resize(bits, 1 << 17).view(np.float32)}
    array = values.get(dtype, bits.view(np.float16) if dtype == "F16" else bits)
    assert rounded(array, dtype, dtype, "w").tobytes() == array.tobytes()


def test_half_types_widen_exactly_and_come_back() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    number = np.isfinite(widened(bits, "BF16"))
    np.testing.assert_array_equal(rounded(widened(bits, "BF16"), "F32", "BF16", "w")[number], bits[number])
    halves = bits.view(np.float16)
    real = np.isfinite(halves)
    np.testing.assert_array_equal(rounded(widened(halves, "F16"), "F32", "F16", "w")[real].view(np.uint16), bits[real])


@pytest.mark.parametrize(
    ("source", "target", "value"), [("F32", "F16", 65520.0), ("BF16", "F16", 70000.0), ("F64", "F32", 1e39), ("F32", "BF16", 3.4e38)]
)
def test_too_large_values_are_an_error(source: str, target: str, value: float) -> None:
    values = rounded(np.array([1.0, value]), "F64", source, "w")
    with pytest.raises(MismatchError, match=r"tensor 'a\.b' has 1 values too large"):
        rounded(values, source, target, "a.b")


def test_the_largest_value_is_not_too_large() -> None:
    assert rounded(np.array([65519.0], np.float32), "F32", "F16", "w") == 65504


def test_finite_sees_every_odd_value() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(finite(bits, "BF16"), np.isfinite((bits.astype(np.uint32) << 16).view(np.float32)))
    np.testing.assert_array_equal(finite(bits.view(np.float16), "F16"), np.isfinite(bits.view(np.float16)))


def test_the_table_plans_one_tensor_for_one() -> None:
    types = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    assert types.keys() <= WEIGHT_TYPES.keys()
    for label, dtype in types.items():
        (stored,) = WEIGHT_TYPES[label]("w", "F32", (2, 3))
        assert (stored.spec.name, stored.spec.dtype, stored.spec.shape) == ("w", dtype, (2, 3))
        blocks = list(stored.encode([np.ones((1, 3), np.float32), np.zeros((1, 3), np.float32)]))
        assert [block.shape for block in blocks] == [(1, 3), (1, 3)]
    assert AS_STORED("w", "F16", (2,))[0].spec.dtype == "F16"
