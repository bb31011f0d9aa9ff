"""The benchmarks run, refuse to time what is wrong, and print what they say they print. No timing is asserted."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.naive import attention as naive_attention

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a file of benchmarks/ by its name; nothing pauses."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)

    def load(name: str) -> Any:
        module = importlib.import_module(name)
        if hasattr(module, "PAUSE"):
            monkeypatch.setattr(module, "PAUSE", 0.0)
        return module

    yield load
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# --- what they share ----------------------------------------------------------------------------------------------------


def test_validation_is_relative_to_the_rms(benchmark: Any) -> None:
    measure = benchmark("measure")
    want = np.array([3.0, -4.0, 0.0, 5.0, -5.0, 0.0, 1.0, 2.0])  # RMS sqrt(80 / 8)
    got = want + np.array([0, 0, 0, 0.1, 0, 0, 0, 0])
    assert measure.validate("x", got, want, 0.04) == pytest.approx(0.1 / np.sqrt(10))
    for wrong in (got, np.full(8, np.nan)):
        with pytest.raises(SystemExit, match=r"x: error .* not timed"):
            measure.validate("x", wrong, want, 0.03)


def test_rows_as_json_and_as_a_table(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    measure = benchmark("measure")
    rows = [{"what": "a", "ms": 1.23456, "ratio": float("nan")}, {"what": "bb", "ms": 1234.5, "ratio": 2.0}]
    measure.report(rows, as_json=True)
    first, second = (json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().out.splitlines())
    assert (first["what"], first["ms"], first["ratio"], second["ratio"]) == ("a", 1.23456, None, 2.0)
    measure.report(rows, as_json=False)
    assert capsys.readouterr().out == "what  ms        ratio\na     1.23\nbb    1.23e+03  2\n"


def test_a_missing_peer_is_said(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    measure = benchmark("measure")
    assert measure.peer("no_such_module_anywhere", "Nobody") is None
    told = capsys.readouterr()
    assert told.err == "Nobody is not installed, so not compared (pip install '.[peers]')\n" and not told.out
    assert measure.peer("json", "JSON") is json


# --- attention ----------------------------------------------------------------------------------------------------------


class NotTorch:
    """Where a benchmark calls PyTorch: its attention from the definition, off by a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.calls = factor, 0
        self.nn = self.functional = self

    def from_numpy(self, array: np.ndarray) -> Any:
        return array

    def scaled_dot_product_attention(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, is_causal: bool) -> Any:
        assert len(q) == len(k) == len(v) == 1  # a batch of one
        self.calls += 1
        heads, length = q.shape[1:3]
        out = naive_attention(q[0], k[0], v[0], is_causal)[0].reshape(length, heads, -1) * self.factor
        return [Rows(out)]


class Rows:
    """What comes out, [heads, length, head_dim], as far as it is used: swapped back, flattened, as an array."""

    def __init__(self, out: np.ndarray) -> None:
        self.out = out

    def transpose(self, *axes: int) -> Rows:
        assert axes == (0, 1)
        return self

    def reshape(self, *shape: int) -> Rows:
        return Rows(self.out.reshape(shape))

    def numpy(self) -> np.ndarray:
        return self.out


@pytest.mark.parametrize(("queries", "keys", "causal", "pairs"), [(5, 7, False, 35), (5, 5, True, 15), (1, 7, True, 7)])
def test_attention_beside_pytorch(benchmark: Any, queries: int, keys: int, causal: bool, pairs: int) -> None:
    attention, torch = benchmark("attention"), NotTorch()
    row = attention.one_line("x", (2, queries, keys, 4, causal), 2, torch)
    assert torch.calls == 1 + 1 + 2  # compared, then warm, then timed
    assert row["Gop/s"] * row["ms"] == pytest.approx(4 * 2 * pairs * 4 / 1e6)
    assert row["times faster than PyTorch"] == pytest.approx(row["PyTorch ms"] / row["ms"])
    with pytest.raises(SystemExit, match="x, PyTorch: error"):
        attention.one_line("x", (2, queries, keys, 4, causal), 1, NotTorch(1.01))


def test_attention_without_pytorch(benchmark: Any) -> None:
    row = benchmark("attention").one_line("x", (2, 3, 3, 4, False), 1, None)
    assert np.isnan(row["PyTorch ms"]) and np.isnan(row["times faster than PyTorch"])


def test_attention_with_the_real_pytorch(benchmark: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for shape in ((2, 5, 7, 4, False), (2, 5, 5, 4, True), (2, 1, 7, 4, True)):
        assert benchmark("attention").one_line("x", shape, 1, torch)["PyTorch ms"] > 0
