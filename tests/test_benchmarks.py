"""The benchmarks run, refuse to time what is wrong, and print what they say they print. No timing is asserted."""

from __future__ import annotations

import importlib
import itertools
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
    assert measure.validate("x", got, want, 0.012, typical=True) == pytest.approx(0.1 / np.sqrt(80))
    for wrong in (got, np.full(8, np.nan)):
        with pytest.raises(SystemExit, match=r"x: error .* not timed"):
            measure.validate("x", wrong, want, 0.03)


@pytest.mark.parametrize("words", [["--repeats", "0"], ["--threads", "0"], ["--threads", "-1"], ["--repeats", "x"]])
def test_numbers_that_mean_nothing(benchmark: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmark("measure").parser("what").parse_args(words)
    assert f"argument {words[0]}: '{words[1]}' is not a whole number of at least 1" in capsys.readouterr().err


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


def test_rounds_take_turns(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, called = benchmark("measure"), []
    clock_by_turns(measure, monkeypatch, 1.0, 6.0, 2.0, 4.0, 3.0, 9.0)
    rounds = measure.in_turn({name: lambda name=name: called.append(name) for name in "ab"}, 3, 0.0)
    assert rounds == {"a": [1.0, 2.0, 3.0], "b": [6.0, 4.0, 9.0]}
    assert "".join(called) == "ab" * 3
    assert measure.ratio(rounds["b"], rounds["a"]) == 3.0  # of 6, 2 and 3
    assert np.isnan(measure.ratio([], rounds["a"]))


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


@pytest.fixture
def attention(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/attention.py, whose calls take 2, 4, 8 and 16 seconds in turn: ours, ops.py's, the ceiling's and PyTorch's."""
    module = benchmark("attention")
    clock_by_turns(benchmark("measure"), monkeypatch, 2.0, 4.0, 8.0, 16.0)
    monkeypatch.setattr(module, "Reading", lambda threads: Ceiling(1e3))
    monkeypatch.setattr(module, "Product", lambda *shape: Ceiling(1e6))
    return module


class Ceiling:
    """So many bytes or operations, in no time."""

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def __call__(self) -> None:
        pass


def clock_by_turns(module: Any, monkeypatch: pytest.MonkeyPatch, *took: float) -> None:
    """The module's clock calls once, and says these numbers over and over."""
    said, name = itertools.cycle(took), "median_seconds" if hasattr(module, "median_seconds") else "seconds"
    monkeypatch.setattr(module, name, lambda function, calls=1: (function(), next(said))[1])


@pytest.mark.parametrize(("queries", "keys", "causal", "pairs"), [(5, 7, False, 35), (5, 5, True, 15), (1, 7, True, 7)])
def test_attention_beside_pytorch(attention: Any, queries: int, keys: int, causal: bool, pairs: int) -> None:
    torch = NotTorch()
    row = attention.one_line("x", (2, queries, keys, 4, causal), 2, torch)
    assert torch.calls == 1 + 2  # compared, then once in each round
    assert [row[name] for name in ("ms", "ops.py ms", "PyTorch ms")] == [2e3, 4e3, 16e3]
    assert [row[f"times faster than {name}"] for name in ("ops.py", "PyTorch")] == [2.0, 8.0]
    assert row["Gop/s"] * 1e9 == pytest.approx(4 * 2 * pairs * 4 / 2)
    if queries == 1:
        assert row["over memory reading"] == pytest.approx(2 * 2 * keys * 4 * 4 / 1e3 * 8 / 2)
        assert np.isnan(row["over NumPy product"])
    else:
        assert row["over NumPy product"] == pytest.approx(4 * 2 * pairs * 4 / 1e6 * 8 / 2) and np.isnan(row["over memory reading"])
    with pytest.raises(SystemExit, match="x, PyTorch: error"):
        attention.one_line("x", (2, queries, keys, 4, causal), 1, NotTorch(1.01))


def test_attention_without_pytorch(attention: Any) -> None:
    row = attention.one_line("x", (2, 3, 3, 4, False), 1, None)
    assert np.isnan(row["PyTorch ms"]) and np.isnan(row["times faster than PyTorch"])


def test_attention_with_the_real_pytorch(attention: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for shape in ((2, 5, 7, 4, False), (2, 5, 5, 4, True), (2, 1, 7, 4, True)):
        assert attention.one_line("x", shape, 1, torch)["PyTorch ms"] > 0


# --- the decoder, and llama.cpp beside it ---------------------------------------------------------------------------------


@pytest.fixture
def decoder(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/decoder.py at small widths; reading memory is left out."""
    from qwenaudio_np.convert.random_checkpoint import Size

    module = benchmark("decoder")
    monkeypatch.setattr(module, "WIDTHS", Size(512, 768, 2, 64, 4, 96, 1, 16, 2, 1_000_000))
    monkeypatch.setattr(module, "Reading", lambda threads: Ceiling(1e8))
    return module


def decoder_lines(decoder: Any, folder: Path) -> dict[str, dict[str, Any]]:
    decoder.write_checkpoint(folder, decoder.WIDTHS)
    return {line["implementation"]: line for line in decoder.lines(str(folder), 1, 1)}


def test_the_decoder_counts_what_it_reads_and_computes(decoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder.measure, "peer", lambda *names: None)
    monkeypatch.setattr(decoder, "Product", lambda *shape: Ceiling(1e9))
    # three products, a prefill, three products; then four times: a reading, four tokens, a reading
    prefill, tokens = (1.0, 1.0, 3.0, 10.0, 5.0, 1.0, 1.0), ((0.01, 0.4, 0.01), (0.01, 0.4, 0.02), (0.01, 0.8, 0.01), (0.02, 0.8, 0.01))
    clock_by_turns(decoder, monkeypatch, *prefill, *itertools.chain(*tokens))
    by_name = decoder_lines(decoder, tmp_path)
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * 96) + 64 * 768  # two blocks, lm_head; the embedding is only looked up
    rest = 2 * (3 * 64 + 2 * 64) + 64  # biases of q, k, v, and norms
    sizes = {"float32": 4 * (matrices + rest), "bfloat16": 2 * (matrices + rest), "int8": matrices * (1 + 2 / 32) + 2 * rest}
    for weights, nbytes in sizes.items():
        line = by_name[f"qwenaudio_np, {weights}"]
        assert line["weights MB"] * 1e6 == pytest.approx(nbytes)
        assert line["ms/token"] == pytest.approx((100 + 200) / 2) and line["prefill ms"] == 10e3
        # 1e8 bytes in 0.01 s, or in that and twice that: 1e10 and 7.5e9 bytes per second around tokens of 0.1 and 0.2 s
        ratios = nbytes / np.array([0.1 * 1e10, 0.1 * 7.5e9, 0.2 * 1e10, 0.2 * 7.5e9])
        assert line["over memory reading"] == pytest.approx(np.median(ratios))
        operations = 171 * (2 * matrices + 2 * 2 * 171 * 64)  # each key and each value of the half that is seen: 4 * 171 / 2
        assert line["over NumPy product"] == pytest.approx(operations / 10 / 1e9)  # medians of products: 1 s, 1 s
    assert by_name["qwenaudio_np, float32"]["error/RMS"] < 1e-4 < by_name["qwenaudio_np, int4"]["error/RMS"]


def test_a_peer_is_compared_round_by_round(decoder: Any) -> None:
    ours, theirs = decoder.Timed(), decoder.Timed()
    ours.prefills, theirs.prefills = [(1.0, 9.0), (4.0, 9.0), (2.0, 9.0)], [(2.0, 9.0), (4.0, 9.0), (6.0, 9.0)]
    ours.tokens, theirs.tokens = [(1.0, 9.0), (10.0, 9.0)], [(3.0, 9.0), (10.0, 9.0)]
    assert decoder.compared(theirs, ours) == {"ours faster, decoding": 2.0, "ours faster, prefill": 2.0}
    assert all(np.isnan(value) for value in decoder.compared(ours, ours).values())


def test_a_wrong_decoder_is_not_timed(decoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = decoder.Ours.step
    monkeypatch.setattr(decoder.Ours, "step", lambda ours, id_: step(ours, id_ ^ (ours.model.labels["backend"] == "numba")))
    with pytest.raises(SystemExit, match="qwenaudio_np, float32: error"):
        decoder_lines(decoder, tmp_path)


def test_llama_cpp_gets_the_same_weights(decoder: Any, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    pytest.importorskip("gguf", reason="gguf is not installed")
    theirs = decoder_lines(decoder, tmp_path)["llama.cpp, Q8_0"]
    assert theirs["error/RMS"] < 0.04 and theirs["ours faster, decoding"] > 0


def test_llama_cpp_with_mixed_up_weights_is_found_out(decoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    pytest.importorskip("gguf", reason="gguf is not installed")
    names = decoder.llama_peer._BLOCK_NAMES
    swapped = {"mlp.w1.weight": names["mlp.w2.weight"], "mlp.w2.weight": names["mlp.w1.weight"]}
    monkeypatch.setattr(decoder.llama_peer, "_BLOCK_NAMES", names | swapped)
    with pytest.raises(SystemExit, match=r"llama.cpp, Q8_0: error"):
        decoder_lines(decoder, tmp_path)
