"""Products with weights of 8 and 4 bits, compiled: the definition's numbers, and the same bits whatever threads and instructions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest

from qwenaudio_np import backends, ops
from qwenaudio_np.errors import BackendError
from qwenaudio_np.quantised import Quantised, quantise, quantise_rows
from tests import quantised_twin as twin
from tests.kernel_parts import compiled_only, part, random

BITS = pytest.mark.parametrize("bits", [8, 4])
ISAS = pytest.mark.parametrize("isa", ["plain", "avx2", "avx512vnni", "avx512vnni-emulated"])


@pytest.fixture(scope="module")
def kernels() -> Iterator[Any]:
    found = backends.get("numba")
    yield found
    found.set_isa(None)


def every_isa() -> tuple[str, ...]:
    """All that run here. The emulated one is the code of avx512vnni with a portable twin of the one instruction that few CPUs have."""
    return (*part("isa").available(), part("isa").EMULATED)


def require(isa: str) -> None:
    if isa not in every_isa():
        pytest.skip(f"this CPU has no {isa}")


def use(kernels: Any, isa: str) -> None:
    require(isa)
    kernels.set_isa(isa)


@BITS
@ISAS
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 100, 70), (2, 32, 16), (13, 48, 33), (5, 700, 90), (12, 64, 32), (24, 33, 17), (35, 97, 81)]
)
def test_linear_equals_its_definition(kernels: Any, bits: int, isa: str, shape: tuple[int, int, int]) -> None:
    use(kernels, isa)
    length, inner, out = shape
    x, record, bias = random(length, inner), quantise(random(out, inner, seed=1), bits), random(out)
    for b in (bias, None):
        expected = ops.linear(x, record, b)
        y = kernels.linear(x, record, b)
        assert y.dtype == np.float32 and y.shape == expected.shape
        assert np.abs(y - expected).max() <= 1e-5 * twin.rms(expected)


@compiled_only
@BITS
def test_instructions_and_threads_do_not_change_a_bit(kernels: Any, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parallel = part("parallel")
    monkeypatch.setattr(parallel, "INLINE", 0)
    record = quantise(random(333, 520, seed=1), bits)
    for length in (1, 30):
        results = set()
        for isa in every_isa():
            kernels.set_isa(isa)
            for threads in (1, 2, 3):
                monkeypatch.setattr(parallel, "_threads", threads)
                results |= {kernels.linear(random(length, 520), record).tobytes() for _ in range(2)}
        assert len(results) == 1


@ISAS
@pytest.mark.parametrize("length", [1, 13])
def test_several_products_round_their_input_once(kernels: Any, isa: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use(kernels, isa)
    x, floats, bias = random(length, 100), random(20, 100, seed=1), random(33)
    products = [(quantise(random(33, 100, seed=2), 8), bias), (quantise(random(40, 100, seed=3), 4), None), (floats, None)]
    alone = [kernels.linear(x, *product).tobytes() for product in products]
    quantised, original = [], part("linear_quantised")._quantised
    monkeypatch.setattr(part("linear_quantised"), "_quantised", lambda *arguments: quantised.append(1) or original(*arguments))
    assert [y.tobytes() for y in kernels.linears(x, *products)] == alone
    assert len(quantised) == 1


@compiled_only
@BITS
def test_an_output_does_not_depend_on_the_other_rows(kernels: Any, bits: int) -> None:
    kernels.set_isa(None)
    x, weight = random(11, 300), random(50, 300)
    whole = kernels.linear(x, quantise(weight, bits))
    assert (whole[3:8, 16:40] == kernels.linear(x[3:8], quantise(weight[16:40], bits))).all()
    assert (whole[7:8] == kernels.linear(x[7:8], quantise(weight, bits))).all()


def extreme(bits: int, byte: int) -> Quantised:
    """16 rows, 64 columns, every byte of codes the same: what only a strange file would hold."""
    ones = np.full((1, 2, 16), 0x3F80, np.uint16)
    return Quantised(bits, (16, 64), np.full((1, 2, 64 * bits), byte, np.uint8), ones, ones if bits == 4 else None)


@ISAS
@pytest.mark.parametrize(("bits", "byte"), [(8, 0x7F), (8, 0x81), (8, 0x80), (4, 0xFF), (4, 0x00)])
def test_no_sum_overflows(kernels: Any, isa: str, bits: int, byte: int) -> None:
    use(kernels, isa)
    x = np.array([[1.0] * 64, [-1.0] * 64, [1.0, -1.0] * 32], np.float32)
    np.testing.assert_allclose(kernels.linear(x, extreme(bits, byte)), ops.linear(x, extreme(bits, byte)), rtol=1e-5)


@ISAS
def test_activations_that_are_no_numbers(kernels: Any, isa: str) -> None:
    use(kernels, isa)
    x = random(7, 64)
    x[0, 3], x[1, 40], x[2, 5], x[3], x[4], x[5, 9] = np.nan, np.inf, -np.inf, 1e-40, 0, 1e37
    for bits in (8, 4):
        record = quantise(random(20, 64), bits)
        np.testing.assert_allclose(kernels.linear(x, record), ops.linear(x, record), rtol=1e-4, atol=1e-5)


def test_activations_are_rounded_as_defined(kernels: Any) -> None:
    x = random(40, 77) * np.float32(10.0) ** np.arange(-40, 37, dtype=np.float32)
    x[1], x[2, 5], x[3, 40], x[4, 70] = 0, np.nan, np.inf, -np.inf
    x[5, :32], x[5, 0], x[6, :3] = np.arange(32) - 15.5, 127, (3e38, 1e-40, -3e38)  # halves go to the even number; a denormal
    expected_codes, expected_scales = quantise_rows(x)
    sums = expected_codes.astype(int).sum(axis=2)
    for tile in (1, 6, 12):
        # [tiles, groups, tile, ...] -> [rows, groups, ...]
        codes, scales, starts, totals = (
            part_.reshape(-1, 3, tile, *shape).swapaxes(1, 2).reshape(-1, 3, *shape)
            for part_, shape in zip(part("linear_quantised")._quantised(x, tile), ((32,), (), (), ()), strict=True)
        )
        assert (codes[:40] == expected_codes).all() and not codes[40:].any() and len(codes) == -(-40 // tile) * tile
        np.testing.assert_array_equal(scales[:40], expected_scales)
        assert (starts[:40] == -128 * sums).all()
        np.testing.assert_array_equal(totals[:40], sums.astype(np.float32) * expected_scales)


def test_what_is_left_to_the_definition(kernels: Any) -> None:
    record = quantise(random(5, 40), 8)
    wide = random(2, 40).astype(np.float64)
    assert (kernels.linear(wide, record) == ops.linear(wide, record)).all()
    assert kernels.linear(np.zeros((0, 40), np.float32), record).shape == (0, 5)
    assert (kernels.embedding(record, np.array([3, 1]), np.dtype(np.float32)) == record[np.array([3, 1])]).all()


def test_instructions_that_are_not_there(kernels: Any) -> None:
    with pytest.raises(BackendError, match="'sse' cannot be used on this CPU, expected one of: "):
        kernels.set_isa("sse")
    assert "plain" in part("isa").available()
    for isa in ("plain", part("isa").EMULATED):
        kernels.set_isa(isa)
        assert kernels.get_isa() == isa
    kernels.set_isa(None)
    assert kernels.get_isa() == part("isa").available()[0]


def test_features_follow_the_settings_of_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    isa = part("isa")
    monkeypatch.setattr(isa.config, "CPU_NAME", "generic")
    assert isa.available() == ("plain",)
    monkeypatch.setattr(isa.config, "CPU_FEATURES", "+avx2,-avx512vnni")
    assert isa.available() == ("avx2", "plain")
    monkeypatch.setattr(isa.config, "CPU_FEATURES", "+avx2,+avx512f,+avx512bw,+avx512vnni")
    assert isa.available() == ("avx512vnni", "avx2", "plain")


# --- making such weights ------------------------------------------------------------------------------------------------------


@compiled_only
@BITS
@pytest.mark.parametrize("heavy", [False, True])
def test_weights_are_quantised_as_defined_bit_for_bit(kernels: Any, bits: int, heavy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part("quantise"), "SMALL", 0)
    for shape in ((1, 1), (33, 100), (64, 256)):
        weight = random(*shape)
        if heavy:
            weight **= 3
        if len(weight) == 64:
            weight[1, 40], weight[2, 5], weight[3], weight[4], weight[5, :9] = np.nan, -np.inf, 0, 0.3, 3e37
            weight[6], weight[7], weight[8] = weight[6] * 1e-38, weight[7] * 1e30, -abs(weight[8])
        expected, record = quantise(weight, bits), kernels.quantise(weight, bits)
        assert (record.bits, record.shape, record.parts.keys()) == (bits, shape, expected.parts.keys())
        for ending, values in expected.parts.items():
            np.testing.assert_array_equal(record.parts[ending], values, ending)


@compiled_only
def test_small_weights_are_not_compiled_for(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part("quantise"), "_block", None)
    weight = random(20, 40).astype(np.float16)
    assert (kernels.quantise(weight, 4)[:] == quantise(weight, 4)[:]).all()


# --- instructions -----------------------------------------------------------------------------------------------------------


@compiled_only
@BITS
@ISAS
def test_group_sums_are_exact(bits: int, isa: str) -> None:
    require(isa)
    simd, definition = part("simd_integer"), part("simd_python")
    add_scaled, group_sums, store, zeros = simd.add_scaled, simd.group_sums, part("simd").store, part("simd").zeros

    @numba.njit
    def compiled(w: Any, x: Any, starts: Any, scales: Any, shares: Any, out: Any) -> None:
        sums = group_sums(3, bits, isa, w, 5, x, 2, 40, starts, 1, 2)
        store(add_scaled(zeros(3), sums, scales, 4, shares, 1, 2), out, 0, 16)

    def python(w: Any, x: Any, starts: Any, scales: Any, shares: Any, out: Any) -> None:
        sums = definition.group_sums(3, bits, isa, w, 5, x, 2, 40, starts, 1, 2)
        definition.store(definition.add_scaled(definition.zeros(3), sums, scales, 4, shares, 1, 2), out, 0, 16)

    rng = np.random.default_rng(0)
    w, x = rng.integers(0, 256, 600).astype(np.uint8), rng.integers(-127, 128, 122).astype(np.int8)
    starts = np.zeros(7, np.int32)
    starts[1::2] = [-128 * x[2 + r * 40 :][:32].astype(int).sum() for r in range(3)]
    scales, shares = (random(20).view(np.uint32) >> 16).astype(np.uint16), random(7)
    outs = [np.zeros(48, np.float32) for _ in range(2)]
    compiled(w, x, starts, scales, shares, outs[0])
    python(w, x, starts, scales, shares, outs[1])
    assert outs[0].any() and (outs[0] == outs[1]).all()
