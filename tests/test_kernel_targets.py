"""Code for CPUs that are not at hand: what is compiled for them, and as much of it as any CPU can run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from llvmlite import binding, ir
from numba.extending import intrinsic

from qwenaudio_np import backends, ops
from tests.kernel_parts import ROOT, compiled_only, part, random, recompiled

BITS = pytest.mark.parametrize("bits", [8, 4])


def test_without_avx_nothing_of_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """NUMBA_ENABLE_AVX=0: Numba's code has none of it then, and LLVM would end the process over a wider vector."""
    isa = part("isa")
    monkeypatch.setattr(isa.config, "ENABLE_AVX", 0)
    monkeypatch.setattr(isa.config, "CPU_FEATURES", None)
    monkeypatch.setattr(isa.config, "CPU_NAME", None)
    assert isa.available() == ("plain",) and not any(name.startswith("avx") for name in isa.features())


# --- vpdpbusd and its twin ----------------------------------------------------------------------------------------------------


@compiled_only
@pytest.mark.parametrize("twin", ["_dot4", "_vpdpbusd"])
def test_four_products_to_a_sum(twin: str) -> None:
    """Every unsigned byte times every signed one, in 32 bits that wrap around, as Intel describes vpdpbusd (vpdpbusds would stop)."""
    if twin == "_vpdpbusd" and "avx512vnni" not in part("isa").available():
        pytest.skip("this CPU has no avx512vnni")
    emit, words, code = getattr(part("integer_code"), twin), part("integer_code").WORDS, part("vector_code")

    @intrinsic
    def add_products(typing: Any, totals: Any, at: Any, codes: Any, codes_at: Any, quads: Any, quad: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = (words, words, code.I32)
            places = [code.address(context, builder, signature.args[2 * i], args[2 * i], args[2 * i + 1], kinds[i]) for i in range(3)]
            values = [builder.load(place, align=4) for place in places]
            builder.store(emit(builder, *values), places[0], align=4)
            return context.get_dummy_value()

        place = numba.types.intp
        return numba.types.void(totals, place, codes, place, quads, place), generate

    @numba.njit
    def run(totals: Any, codes: Any, quads: Any) -> None:
        for quad in range(len(quads)):
            for register in range(4):
                add_products(totals, (quad * 4 + register) * 16, codes, register * 16, quads, quad)

    w = np.arange(256, dtype=np.uint8).reshape(4, 16, 4)  # 4 registers of 16 quads
    x = np.stack([np.roll(np.arange(-128, 128), shift) for shift in (0, 1, 2, 130)], axis=1).astype(np.int8)  # [256, 4]
    totals = np.random.default_rng(0).choice(np.array([0, 77, -(2**31), 2**31 - 1], np.int32), (256, 4, 16))
    exact = totals + np.einsum("rlj,qj->qrl", w.astype(np.int64), x.astype(np.int64))
    run(totals.reshape(-1), w.reshape(-1).view(np.int32), x.reshape(-1).view(np.int32))
    assert exact.max() >= 2**31 and exact.min() < -(2**31)
    assert (totals == exact.astype(np.int32)).all()


@compiled_only
@BITS
def test_the_emulated_code_differs_in_that_one_instruction_alone(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    code, marked = part("integer_code"), []

    def marker(builder: Any, total: Any, codes: Any, quad: Any) -> Any:
        marked.append(quad)
        return part("vector_code").call(builder, "four.products", code.WORDS, [total, codes, quad])

    assert group_sums("avx512vnni", bits) != group_sums(part("isa").EMULATED, bits)
    for twin in ("_vpdpbusd", "_dot4"):
        monkeypatch.setattr(code, twin, marker)
    assert group_sums("avx512vnni", bits) == group_sums(part("isa").EMULATED, bits)
    assert len(marked) == 2 * 2 * 8  # modules, rows of activations, quads
    tile = part("linear_quantised").TILE
    assert tile["avx512vnni"] == tile[part("isa").EMULATED]


# --- the code that is emitted -------------------------------------------------------------------------------------------------


def group_sums(isa: str, bits: int) -> str:
    """`group_sums` alone, for 2 rows of activations, in LLVM's language."""
    code = part("integer_code")
    module = ir.Module()
    words, lane = code.WORDS.as_pointer(), ir.IntType(32).as_pointer()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [words, words, lane, lane]), "sums")
    builder = ir.IRBuilder(function.append_basic_block())
    out, w, x, totals = function.args

    def at(base: Any, i: int) -> Any:
        return builder.gep(base, [ir.Constant(ir.IntType(64), i)])

    rows = [lambda quad, r=r: builder.load(at(x, 8 * r + quad)) for r in range(2)]
    sums = code.group_sums(
        builder, isa, bits, [builder.load(at(w, i)) for i in range(bits)], rows, [builder.load(at(totals, r)) for r in range(2)]
    )
    for r, total in enumerate(sums):
        builder.store(total, at(out, r))
    builder.ret_void()
    module.triple = "x86_64-unknown-linux-gnu"
    return str(module)


def assembly(isa: str, bits: int, cpu: str) -> str:
    """The same, compiled for another CPU."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(cpu=cpu, opt=3)
    return str(machine.emit_assembly(binding.parse_assembly(group_sums(isa, bits))))


@compiled_only
@BITS
@pytest.mark.parametrize(
    ("isa", "cpu", "instruction", "count"),
    [
        ("avx512vnni", "cascadelake", "vpdpbusd", 16),
        ("avx512vnni", "sapphirerapids", "vpdpbusd", 16),
        ("avx2", "haswell", "vpmaddubsw", 32),
    ],
)
def test_the_instruction_is_emitted(isa: str, cpu: str, bits: int, instruction: str, count: int) -> None:
    """2 rows of activations, 8 quads: one vpdpbusd each; AVX2 has half registers."""
    text = assembly(isa, bits, cpu)
    assert text.count(f"\t{instruction}\t") == count
    assert "zmm" in text if isa == "avx512vnni" else "zmm" not in text


@compiled_only
def test_plain_needs_no_instruction_of_its_own() -> None:
    assert "vp" not in assembly("plain", 4, "x86-64")


@compiled_only
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="Numba compiles for this kind of CPU alone")
def test_a_whole_kernel_compiled_for_avx512(tmp_path: Path) -> None:
    """Not run, only compiled: 12 rows x 8 quads of one vpdpbusd each.

    Its first operand here, the third in Intel's order, is the signed one: it must be the quad of activations, read from memory and
    repeated. The weights without sign are in the register behind it.
    """
    program = """
import re
from numba import types
from qwenaudio_np.kernels import isa, linear_quantised, simd
stored = lambda kind: types.Array(kind, 1, "C", readonly=True)
kinds = (types.int8, types.float32, types.int32, types.float32, types.uint8, types.uint16, types.uint16, types.float32)
arrays = (*map(stored, kinds), types.Array(types.float32, 1, "C"))
print(isa.get_isa(), simd.ROWS)
for bits in (8, 4):
    kernel = linear_quantised._compiled(bits, linear_quantised.TILE[isa.get_isa()], isa.get_isa())
    board = types.Array(types.int64, 1, "C"), types.Array(types.uint8, 1, "C"), *[types.intp] * 3
    kernel.compile((*board, types.StarArgTuple((*arrays, types.UniTuple(types.intp, 5)))))
    (text,) = kernel.inspect_asm().values()
    signed_from_memory = re.findall(r"vpdpbusd\\t\\S*\\([^)]*\\){1to16}, %zmm\\d+, %zmm\\d+", text)
    print(text.count("vpdpbusd"), len(signed_from_memory))
"""
    target = {"NUMBA_CPU_NAME": "cascadelake", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni"}
    environment = os.environ | target | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert ran.stdout.splitlines() == ["avx512vnni 12", "96 96", "96 96"], ran.stderr


# --- tiles of 12 rows, which AVX-512 has registers for, and of 6 --------------------------------------------------------------


@compiled_only
def test_products_and_attention_in_tiles_of_another_height(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this CPU's height are what all other tests run."""
    kernels, rows = backends.get("numba"), {6: 12, 12: 6}[part("simd").ROWS]
    lengths = (9, rows, rows + 1, 35)
    here = [kernels.linear(random(n, 300), random(140, 300), random(140)).tobytes() for n in lengths]
    for name in ("linear", "attention"):
        recompiled(monkeypatch, part(name), ROWS=rows)
    assert [kernels.linear(random(n, 300), random(140, 300), random(140)).tobytes() for n in lengths] == here
    for length, total, causal in ((5, 5, True), (rows, rows, False), (rows + 1, 300, True), (200, 270, True)):
        q, k, v = random(2, length, 20), random(2, total, 20, seed=1), random(2, total, 20, seed=2)
        expected = ops.attention(q.astype(np.float64), k, v, causal)
        assert np.abs(kernels.attention(q, k, v, causal) - expected).max() < 2e-6
