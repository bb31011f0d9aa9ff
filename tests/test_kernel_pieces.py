"""No call of a kernel takes long: Ctrl-C is answered between two of them, so each one's multiply-adds are bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qwenaudio_np import backends
from qwenaudio_np.quantised import quantise
from tests.kernel_parts import compiled_only, part, random

LONGEST = 1 << 18

# Operation, and the multiply-adds that each number of its result takes.
OPERATIONS: dict[str, tuple[Callable[[Any], NDArray[Any]], int]] = {
    "one row": (lambda k: k.linear(random(1, 2100), random(777, 2100), random(777)), 2100),
    "few rows": (lambda k: k.linear(random(7, 700), random(300, 700)), 700),
    "many rows": (lambda k: k.linear(random(101, 150), random(200, 150), random(200)), 150),
    "int8, one row": (lambda k: k.linear(random(1, 2100), quantise(random(777, 2100), 8)), 2112),
    "int4, few rows": (lambda k: k.linear(random(3, 700), quantise(random(600, 700), 4)), 704),
    "int8, many rows": (lambda k: k.linear(random(101, 150), quantise(random(200, 150), 8), random(200)), 160),
    "attention": (lambda k: k.attention(random(2, 101, 40), random(2, 200, 40), random(2, 200, 40), True), 2 * 200),
}


def counted(kernel: Callable[..., Any], counts: list[int]) -> Callable[..., bool]:
    """The kernel, but how many numbers of its result each call writes is noted."""

    def run(*arguments: Any) -> bool:
        (y,) = (array for array in arguments if isinstance(array, np.ndarray) and array.flags.writeable and array.dtype == np.float32)
        before = y.copy()
        y[:] = np.nan
        assert kernel(*arguments)
        written = ~np.isnan(y)
        counts.append(int(written.sum()))
        y[~written] = before[~written]
        return True

    return run


@compiled_only
@pytest.mark.parametrize("operation", OPERATIONS)
def test_work_of_one_call(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, parallel, linear, integer = backends.get("numba"), part("parallel"), part("linear"), part("linear_quantised")
    run, cost = OPERATIONS[operation]
    whole, compiled, counts = run(kernels), integer._compiled, []
    monkeypatch.setattr(parallel, "_threads", 1)
    monkeypatch.setattr(parallel, "SECONDS", 0.0)  # as if every call had taken too long
    for module, name in ((linear, "_dots"), (linear, "_panels"), (part("attention"), "_tiled")):
        monkeypatch.setattr(module, name, counted(getattr(module, name), counts))
    monkeypatch.setattr(integer, "_compiled", lambda *kind: counted(compiled(*kind), counts))
    largest = []
    for longest in (LONGEST, 1 << 40):
        monkeypatch.setattr(parallel, "LONGEST", longest)
        assert (run(kernels) == whole).all()  # no bit depends on the pieces
        assert sum(counts) == whole.size  # each number by one call
        largest.append(max(counts) * cost)
        counts.clear()
    assert LONGEST / 8 < largest[0] <= LONGEST < largest[1]


def test_calls_are_made_to_last_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick calls are followed by larger, at most GROWTH times as large; slow ones by smaller ones, at least a piece for each thread."""
    parallel, now, sizes = part("parallel"), [0.0], []
    monkeypatch.setattr(parallel.time, "perf_counter", lambda: now[0])
    for first, last, name in parallel._parts(("x",), 10000, parallel.LONGEST // 4, 2):
        assert first == sum(sizes) and name == "x"
        sizes.append(last - first)
        now[0] += sizes[-1] * (parallel.SECONDS / 64 if len(sizes) < 5 else parallel.SECONDS)
    assert sum(sizes) == 10000 and sizes[:2] == [8, 32] and sizes[5:7] == [2, 2]
    assert all(62 <= size <= 64 for size in sizes[2:5])  # but for rounding what fills SECONDS


def test_how_long_the_longest_call_may_be() -> None:
    """200 ms at 1.4e9 multiply-adds a second, a sixth of what the slowest kernel does on a machine of 2021."""
    parallel = part("parallel")
    assert parallel.LONGEST <= 0.2 * 1.4e9
    assert parallel.within(12, 1000) % 12 == 0 and parallel.LONGEST - 12000 < parallel.within(12, 1000) * 1000 <= parallel.LONGEST
    assert parallel.within(12, parallel.LONGEST) == 12
