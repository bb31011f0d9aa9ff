"""What only compiled kernels have: threads, and one compilation for all kinds of arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from qwenaudio_np import backends, ops
from qwenaudio_np.threads import usable_cores
from tests.kernel_parts import ROOT, compiled_only, part, random


@pytest.fixture(scope="module")
def kernels() -> Any:
    return backends.get("numba")


# --- threads ----------------------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Any], NDArray[Any]]] = {
    "linear, one row": lambda k: k.linear(random(1, 2100), random(777, 2100)),
    "linear, many rows": lambda k: k.linear(random(37, 300), random(777, 300), random(777)),
    "linears, one row": lambda k: np.concatenate(k.linears(random(1, 2100), (random(777, 2100), random(777)), (random(90, 2100), None)), 1),
    "linears, many rows": lambda k: np.concatenate(k.linears(random(37, 300), (random(777, 300), None), (random(90, 300), random(90))), 1),
    "conv1d": lambda k: k.conv1d(random(20, 700), random(33, 20, 3), random(33), 2),
    "attention, one query": lambda k: k.attention(random(7, 1, 40), random(7, 600, 40), random(7, 600, 40), True),
    "attention, many queries": lambda k: k.attention(random(3, 400, 40), random(3, 450, 40), random(3, 450, 40), True),
    "gelu": lambda k: k.gelu(random(5, 10007)),
    "gated_silu": lambda k: k.gated_silu(random(5, 10007), random(5, 10007, seed=1)),
    "layer_norm": lambda k: k.layer_norm(random(100, 70), random(70), random(70)),
    "rms_norm": lambda k: k.rms_norm(random(100, 70), random(70), 1e-6),
}


@compiled_only
@pytest.mark.parametrize("operation", OPERATIONS)
def test_any_number_of_threads_gives_the_same_bits(kernels: Any, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parallel = part("parallel")
    monkeypatch.setattr(parallel, "INLINE", 0)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(parallel, "_threads", threads)
        results += [OPERATIONS[operation](kernels).tobytes() for _ in range(3)]
    assert len(set(results)) == 1


def test_set_threads_is_clamped(kernels: Any) -> None:
    most = min(numba.config.NUMBA_NUM_THREADS, usable_cores())
    try:
        for asked, used in ((1, 1), (0, 1), (10**6, most), (None, most)):
            kernels.set_threads(asked)
            assert kernels.get_threads() == used
    finally:
        kernels.set_threads(None)


# --- arrays -----------------------------------------------------------------------------------------------------------------


@compiled_only
def test_one_compilation_for_every_kind_of_array(kernels: Any, tmp_path: Path) -> None:
    weight, x = random(40, 30), random(1, 60)
    np.save(tmp_path / "weight.npy", weight)
    weight_map = np.load(tmp_path / "weight.npy", mmap_mode="r")
    kernels.linear(x[:, :30], weight)
    before = len(part("linear")._dots.signatures)
    frozen = x[:, :30].copy()
    frozen.flags.writeable = False
    for view in (frozen, x[:, ::2], np.asfortranarray(random(3, 30))):
        for stored in (weight, weight_map, weight[::2], np.asfortranarray(weight)):
            kernels.linear(view, stored)
    assert len(part("linear")._dots.signatures) == before


def test_views_of_a_cache_are_not_copied() -> None:
    cache, side_by_side = random(3, 40, 12), random(9, 36)
    for view in (cache[:, :21], cache[1:, 5:], side_by_side.reshape(9, 3, 12).transpose(1, 0, 2)):
        flat, (to_head, to_row) = part("arrays").rows_of(view)
        assert np.shares_memory(flat, view)
        for head, row in ((0, 0), (1, 7)):
            assert (flat[head * to_head + row * to_row :][:12] == view[head, row]).all()


def test_an_output_does_not_depend_on_the_other_rows(kernels: Any) -> None:
    x, weight = random(40, 300), random(50, 300)
    assert (kernels.linear(x, weight)[3:20, 5:40] == kernels.linear(x[3:20], weight[5:40])).all()


def test_nothing_else_of_the_package_needs_numba() -> None:
    program = "import sys, qwenaudio_np.ops, qwenaudio_np.backends; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize("length", [1, 9])
def test_an_empty_product_leaves_the_others_compiled(kernels: Any, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, full, none = random(length, 40), (random(30, 40), random(30)), (random(0, 40), random(0))
    record = (ops.quantise(random(16, 40, seed=2), 8), None)
    alone = [kernels.linear(x, *product).tobytes() for product in (full, record)]
    monkeypatch.setattr(ops, "linears", None)
    first, empty, last = kernels.linears(x, full, none, record)
    assert empty.shape == (length, 0) and [first.tobytes(), last.tobytes()] == alone


MISFITS: dict[str, Callable[[Any], object]] = {
    "weight": lambda k: k.linear(random(1, 40), random(8, 20)),
    "weight, many rows": lambda k: k.linear(random(13, 40), random(8, 80)),
    "weight, quantised": lambda k: k.linear(random(2, 40), ops.quantise(random(8, 80), 8)),
    "weight of the second product": lambda k: k.linears(random(2, 40), (random(8, 40), None), (random(8, 39), None)),
    "bias, short": lambda k: k.linear(random(1, 40), random(8, 40), random(3)),
    "bias, long": lambda k: k.linear(random(13, 40), random(8, 40), random(9)),
    "weight of rms_norm": lambda k: k.rms_norm(random(3, 40), random(20), 1e-6),
    "weight of layer_norm": lambda k: k.layer_norm(random(3, 40), random(41), random(41)),
    "bias of layer_norm": lambda k: k.layer_norm(random(3, 40), random(40), random(39)),
    "k, fewer heads": lambda k: k.attention(random(3, 1, 8), random(2, 5, 8), random(2, 5, 8), True),
    "k, wider": lambda k: k.attention(random(3, 7, 8), random(3, 9, 9), random(3, 9, 9), True),
    "v, fewer positions": lambda k: k.attention(random(3, 1, 8), random(3, 5, 8), random(3, 4, 8), True),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_shapes_that_do_not_fit_are_refused(kernels: Any, misfit: str) -> None:
    """As the definition refuses them; compiled code would read what lies behind the smaller array."""
    with pytest.raises(ValueError, match=rf"^{misfit[0]}\w* has the shape \(.*\), expected \("):
        MISFITS[misfit](kernels)
    with pytest.raises((ValueError, IndexError)):
        MISFITS[misfit](ops)


def test_the_backend_offers_every_operation(kernels: Any) -> None:
    for name in (name for name in vars(backends.Ops) if not name.startswith("_")):
        assert callable(getattr(kernels, name))
        assert callable(getattr(ops, name))
