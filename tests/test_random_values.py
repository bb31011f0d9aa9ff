"""The made-up values, by a second implementation in Python's whole numbers."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np
import pytest

from qwenaudio_np.config import parse_config
from qwenaudio_np.convert.random_checkpoint import SIZES, config_fields
from qwenaudio_np.convert.random_values import BLOCK, random_pieces, round_float64, rule_for
from qwenaudio_np.names import expected_tensors

SPAN = 1 << 64


class Draw(NamedTuple):
    """The numbers of the worked example."""

    fnv: int
    key: int
    mixed: int
    u: int


def draw(seed: int, name: str, index: int) -> Draw:
    """The hash in Python's whole numbers, from its description alone."""

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % SPAN
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % SPAN
        return z ^ (z >> 31)

    fnv = 14695981039346656037
    for byte in name.encode():
        fnv = (fnv ^ byte) * 1099511628211 % SPAN
    key = mix((fnv + seed * 0x9E3779B97F4A7C15) % SPAN)
    mixed = mix((key + (index + 1) * 0x9E3779B97F4A7C15) % SPAN)
    return Draw(fnv, key, mixed, mixed >> 40)


def naive_value(seed: int, name: str, shape: tuple[int, ...], index: int) -> float:
    """One value before rounding, from the table."""
    n = draw(seed, name, index).u - (1 << 23)
    if name.endswith(".bias"):
        return n / (1 << 29)
    if len(shape) == 1:
        return ((1 << 23) + n // 16) / (1 << 23)
    if name.endswith(("wte.weight", "audio_bos_eos_token.weight")):
        return n / (1 << 23)
    k = math.floor(math.log2(math.prod(shape[1:])) / 2)
    if name == "lm_head.weight" and not 256 <= index // shape[1] < 512:
        return n / (1 << (26 + k))
    if name == "transformer.h.0.attn.c_attn.weight":
        return n / (1 << (21 + k))
    return n / (1 << (23 + k))


def float32_bits(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


def naive_bfloat16(value: float) -> int:
    """Nearest bfloat16 of a float32, ties to even, by trying both neighbours."""
    low = float32_bits(value) >> 16

    def widened(bits: int) -> float:
        return struct.unpack("<f", (bits << 16).to_bytes(4, "little"))[0]

    return min((low, low + 1), key=lambda bits: (abs(widened(bits) - value), bits % 2))


def test_worked_example_of_the_docstring() -> None:
    name = "transformer.audio.proj.weight"
    example = draw(7, name, 5)
    assert example == (0xF6968EF0B814E1C5, 0x1A0D9F152ADA7187, 0xA6A2E61A030F9EF8, 10920678)
    value = (example.u - 8388608) * 2.0**-25
    assert value == 0.07546156644821167 == naive_value(7, name, (64, 48), 5)
    for dtype, bits in (("F32", float32_bits(value)), ("BF16", 0x3D9B), ("F16", 0x2CD4)):
        (first, *_) = random_pieces(name, (64, 48), dtype, 7)
        assert first[5:6].view({"F32": np.uint32}.get(dtype, np.uint16))[0] == bits


def test_every_tensor_by_the_second_implementation() -> None:
    """A few values of each tensor, first and last among them, in all three types."""
    for name, shape in expected_tensors(parse_config(config_fields(SIZES["tiny"]))).items():
        if name.endswith("positional_embedding"):
            continue
        size = math.prod(shape)
        bits = {dtype: b"".join(piece.tobytes() for piece in random_pieces(name, shape, dtype, 0)) for dtype in ("F32", "F16", "BF16")}
        for index in {0, 1, size // 3, size // 2, size - 1, *range(16000 % size, size, 15999)}:
            value = naive_value(0, name, shape, index)
            assert bits["F32"][4 * index : 4 * index + 4] == struct.pack("<f", value), (name, index)
            assert bits["F16"][2 * index : 2 * index + 2] == struct.pack("<e", value), (name, index)
            assert bits["BF16"][2 * index : 2 * index + 2] == naive_bfloat16(value).to_bytes(2, "little"), (name, index)


def test_values_are_exact_in_float32() -> None:
    for name, shape in expected_tensors(parse_config(config_fields(SIZES["tiny"]))).items():
        for index in range(min(200, math.prod(shape))):
            value = naive_value(3, name, shape, index)
            assert struct.unpack("<f", struct.pack("<f", value))[0] == value


def test_pieces_do_not_depend_on_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(random_pieces("lm_head.weight", (700, 64), "BF16", 5)))
    assert len(whole) == 700 * 64 > BLOCK
    monkeypatch.setattr("qwenaudio_np.convert.random_values.BLOCK", 1000)
    assert np.array_equal(np.concatenate(list(random_pieces("lm_head.weight", (700, 64), "BF16", 5))), whole)


def test_values_fill_their_range_evenly() -> None:
    (values, *_) = random_pieces("transformer.h.1.mlp.w1.weight", (192, 64), "F32", 0)
    assert rule_for("transformer.h.1.mlp.w1.weight", (192, 64)).exponent == 26
    assert abs(values).max() <= 0.125 and abs(values).max() > 0.1249
    counts, _ = np.histogram(values, 16, (-0.125, 0.125))
    assert abs(counts - 768).max() < 5 * math.sqrt(768)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 5 / math.sqrt(len(values))


def test_positions_are_the_sinusoids_of_whisper() -> None:
    (flat,) = random_pieces("transformer.audio.positional_embedding", (1500, 48), "F32", 0)
    table = flat.reshape(1500, 48)
    assert table[0].tolist() == [0.0] * 24 + [1.0] * 24
    for position, column in ((1, 0), (1499, 0), (700, 5), (1499, 23), (3, 24), (1499, 30), (20, 47)):
        angle = position * math.exp(-(column % 24) * math.log(10000) / 23)
        expected = math.sin(angle) if column < 24 else math.cos(angle)
        assert table[position, column] == pytest.approx(expected, abs=1e-7)


def test_positions_are_rounded_once() -> None:
    """1 + 2^-8 is halfway between two bfloat16 values. A little more, lost in float32, must still round up."""
    values = np.array([1 + 2**-8, 1 + 2**-8 + 2**-40, 1 + 3 * 2**-8, -(1 + 2**-8 + 2**-40), 0.0])
    assert round_float64(values, "BF16").tolist() == [0x3F80, 0x3F81, 0x3F82, 0xBF81, 0]


@pytest.mark.parametrize("seed", [1, 1 << 32, SPAN - 1])
def test_seeds_up_to_64_bits(seed: int) -> None:
    (values, *_) = random_pieces("transformer.wte.weight", (10, 64), "F32", seed)
    assert values.tolist() == [naive_value(seed, "transformer.wte.weight", (10, 64), index) for index in range(640)]
