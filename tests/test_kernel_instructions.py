"""The instructions that kernels are written in: LLVM code against its definition in NumPy."""

from __future__ import annotations

import platform
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernel_parts import compiled_only, part, random


def stored(kind: str, count: int) -> NDArray[Any]:
    values = random(count)
    return {
        "float32": values,
        "float64": values.astype(np.float64) / 3,
        "float16": values.astype(np.float16).view(np.int16),
        "bfloat16": (values.view(np.uint32) >> 16).astype(np.uint16),
    }[kind]


@compiled_only
@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16"])
def test_instructions_on_stored_weights(kind: str) -> None:
    simd, definition = part("simd"), part("simd_python")
    add_dot, add_multiple, load, store = simd.add_dot, simd.add_multiple, simd.load, simd.store
    transpose, widened, zeros = simd.transpose, simd.widened, simd.zeros

    @numba.njit
    def compiled(w: Any, x: Any, dots: Any, rows: Any, copy: Any, turned: Any) -> float:
        store(add_dot(add_dot(zeros(3), x, 1, w, 2, 20), x, 17, w, 18, 20), dots, 0, 16)
        store(add_multiple(add_multiple(zeros(4), x, 7, w, 3), x, 9, w, 30), rows, 0, 16)
        store(load(w, 5), copy, 0, 16)
        transpose(w, 1, 9, turned, 3, 10)
        return widened(w, 4)

    def python(w: Any, x: Any, dots: Any, rows: Any, copy: Any, turned: Any) -> float:
        d = definition
        d.store(d.add_dot(d.add_dot(d.zeros(3), x, 1, w, 2, 20), x, 17, w, 18, 20), dots, 0, 16)
        d.store(d.add_multiple(d.add_multiple(d.zeros(4), x, 7, w, 3), x, 9, w, 30), rows, 0, 16)
        d.store(d.load(w, 5), copy, 0, 16)
        d.transpose(w, 1, 9, turned, 3, 10)
        return d.widened(w, 4)

    w, x = stored(kind, 100), random(40)
    outs = [[np.zeros(n, np.float32) for n in (48, 64, 16, 90)] for _ in range(2)]
    assert compiled(w, x, *outs[0]) == python(w, x, *outs[1])
    for got, expected in zip(*outs, strict=True):
        assert (got == expected).all()
        assert got.any()


@compiled_only
def test_instructions_on_tiles() -> None:
    simd, definition = part("simd"), part("simd_python")
    add, add_outer, add_to, lane_max, lane_sum = simd.add, simd.add_outer, simd.add_to, simd.lane_max, simd.lane_sum
    load, maximum, store, store_sums, zeros = simd.load, simd.maximum, simd.store, simd.store_sums, simd.zeros

    @numba.njit
    def compiled(x: Any, outer: Any, sums: Any, both: Any) -> tuple[float, float]:
        tile = add_outer(add_outer(zeros(5), x, 0, 3, x, 20), x, 1, 3, x, 40)
        add_to(tile, outer, 2, 18)
        store_sums(tile, sums, 1)
        store(maximum(add(load(x, 0), load(x, 16)), load(x, 32)), both, 0, 16)
        return lane_sum(load(x, 8)), lane_max(load(x, 9))

    def python(x: Any, outer: Any, sums: Any, both: Any) -> tuple[float, float]:
        d = definition
        tile = d.add_outer(d.add_outer(d.zeros(5), x, 0, 3, x, 20), x, 1, 3, x, 40)
        d.add_to(tile, outer, 2, 18)
        d.store_sums(tile, sums, 1)
        d.store(d.maximum(d.add(d.load(x, 0), d.load(x, 16)), d.load(x, 32)), both, 0, 16)
        return d.lane_sum(d.load(x, 8)), d.lane_max(d.load(x, 9))

    x = random(64)
    outs = [[np.ones(n, np.float32) for n in (92, 7, 16)] for _ in range(2)]
    assert compiled(x, *outs[0]) == python(x, *outs[1])
    for got, expected in zip(*outs, strict=True):
        assert (got == expected).all()


@compiled_only
def test_fetching_ahead_is_one_instruction_a_line_and_may_pass_the_end() -> None:
    prefetch, load, store = part("simd").prefetch, part("simd").load, part("simd").store

    @numba.njit
    def compiled(x: Any, out: Any) -> None:
        prefetch(x, 0, 1, 1)
        prefetch(x, 1 << 40, 8, 1)
        prefetch(x, 8, 2, 2)
        store(load(x, 3), out, 0, 16)

    x, out = stored("bfloat16", 40), np.zeros(16, np.float32)
    compiled(x, out)
    assert (out == part("simd_python").read(x, 3, 16)).all()
    if platform.machine() in ("x86_64", "AMD64"):  # no number would tell if they were gone
        (text,) = compiled.inspect_asm().values()
        assert text.count("prefetchnta") == 9 and text.count("prefetcht1") == 2


@compiled_only
@pytest.mark.parametrize("by_hand", [False, True])
def test_every_float16_is_widened_exactly(by_hand: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    load, store = part("simd").load, part("simd").store
    if by_hand:  # as on a CPU without the instruction
        monkeypatch.setattr(part("vector_code"), "host_has", lambda feature: False)

    @numba.njit
    def widen(halves: Any, out: Any) -> None:
        for i in range(0, len(halves), 16):
            store(load(halves, i), out, i, 16)

    bits, out = np.arange(65536).astype(np.uint16), np.empty(65536, np.float32)
    widen(bits.view(np.int16), out)
    np.testing.assert_array_equal(out, bits.view(np.float16).astype(np.float32))
    assert (np.signbit(out) == (bits >= 0x8000)).all()


@pytest.mark.parametrize("count", [1, 1000 if numba.config.DISABLE_JIT else 1_000_000])
def test_the_exponential_is_accurate(count: int) -> None:
    exp = part("simd").exp_nonpositive

    @numba.njit
    def run(x: Any, out: Any) -> None:
        for i in range(len(x)):
            out[i] = exp(x[i])

    x = np.linspace(-87.3, 0, count, dtype=np.float32)
    out = np.empty_like(x)
    run(x, out)
    assert abs(out / np.exp(x.astype(np.float64)) - 1).max() < 1.2e-7
    edges, out = np.array([0, -0.0, -1e-30, -88, -1e30, -np.inf, np.nan], np.float32), np.empty(7, np.float32)
    run(edges, out)
    np.testing.assert_array_equal(out, np.array([1, 1, 1, 0, 0, 0, np.nan], np.float32))
