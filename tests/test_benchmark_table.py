"""The table of goals: what it takes from which benchmark, which bounds are met, what it prints. Nothing is timed."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a file of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: __import__(name)


# One line of every kind, as the benchmarks print them.
DECODER = [
    {"implementation": "qwenaudio_np, float32", "over memory reading": 0.5, "over NumPy product": 1.0},
    {"implementation": "qwenaudio_np, bfloat16", "over memory reading": 0.9, "over NumPy product": 1.3},
    {"implementation": "qwenaudio_np, int8", "over memory reading": 0.84, "over NumPy product": 2.0, "ours faster, decoding": None},
    {"implementation": "qwenaudio_np, int4", "over memory reading": 0.96, "over NumPy product": 3.5},
    {"implementation": "llama.cpp, Q8_0", "over memory reading": 0.6, "ours faster, decoding": 1.4, "ours faster, prefill": 1.5},
]
TOLD = {
    "decoder": DECODER,
    "encoder": [{"implementation": "qwenaudio_np, int8", "times faster than PyTorch": None}],
    "attention": [{"shape": "encoder, 30 s", "times faster than PyTorch": 1.2}, {"shape": "decode", "times faster than PyTorch": 9.0}],
    "start": [{"run": "first ever, compiling included", "seconds": 20.0}, {"run": "second", "seconds": 0.9}],
    "request": [{"weights": "int4", "peak GB": 5.6, "load s": 0.5, "encoder + prefill s": 11.0, "tokens/s": 4.7}],
    "bench": [{"stage": "encoder, 5.9 s", "ratio": 1.5}, {"stage": "decoding, per token", "ratio": 0.9}],
}


def rows(benchmark: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, parameters: int) -> list[dict[str, Any]]:
    table = benchmark("table")
    commands: list[list[str]] = []

    def ran(command: list[str]) -> Any:
        commands.append(command)
        name = "bench" if "bench" in command else Path(command[1]).stem
        return table.Told(TOLD[name], 0, name)

    monkeypatch.setattr(table, "ran", ran)
    monkeypatch.setattr(table, "parameters", lambda model: parameters)
    found = list(table.measured(["somewhere"], Namespace(repeats=2, threads=3)))
    assert len(commands) == len(TOLD)  # each once
    assert all(command[command.index("--repeats") :] == ["--repeats", "2", "--threads", "3"] for command in commands)
    return found


def test_each_goal_finds_its_figure(benchmark: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {row["what"]: (row["measured"], row["met"], row["note"]) for row in rows(benchmark, monkeypatch, 8_400_000_000)}
    request = "request, 8.4 B parameters, int4"
    assert found == {
        "decoding, int4: over plain memory reading": (0.96, "aim", ""),
        "decoding, int8: over plain memory reading": (0.84, "no", ""),
        "decoding, bfloat16: over plain memory reading": (0.9, "least", ""),
        "prefill of 171, int4: over NumPy's float32 product": (3.5, "aim", ""),
        "prefill of 171, int8: over NumPy's float32 product": (2.0, "least", ""),
        "prefill of 171, bfloat16: over NumPy's float32 product": (1.3, "aim", ""),
        "prefill of 171, float32: over NumPy's float32 product": (1.0, "least", ""),
        "decoding beside llama.cpp's Q4_0": (None, "", "no llama.cpp here"),
        "prefill beside llama.cpp's Q4_0": (None, "", "no llama.cpp here"),
        "decoding beside llama.cpp's Q8_0": (1.4, "", ""),
        "prefill beside llama.cpp's Q8_0": (1.5, "", ""),
        "encoder, 30 s, int8: faster than PyTorch float32": (None, "", "no PyTorch here"),
        "attention of the encoder, 30 s: faster than PyTorch": (1.2, "least", ""),
        "tiny model, second run: start to text": (0.9, "aim", ""),
        "tiny model, first run ever, compiling included": (20.0, "least", ""),
        f"{request}: most resident memory": (5.6, "least", ""),
        f"{request}: loading": (0.5, "aim", ""),
        f"{request}: encoder + prefill": (11.0, "no", ""),
        f"{request}: decoding": (4.7, "aim", ""),
        f"{request}: decoding over plain memory reading": (0.9, "", ""),  # the goal is that of bfloat16
    }


def test_goals_of_the_full_size_are_not_those_of_others(benchmark: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    small = [row for row in rows(benchmark, monkeypatch, 1_700_000_000) if row["what"].startswith("request")]
    assert len(small) == 5
    assert all(row["least"] is row["aim"] is None and row["met"] == "" and row["measured"] is not None for row in small)
    goals = benchmark("goals")
    (goal,) = goals.decoding("bfloat16", 8_400_000_000)
    assert (goal.least, goal.aim) == (0.8, 0.95)
    memory, loading, *_ = goals.request("bfloat16", 8_400_000_000)
    assert [memory.met(gigabytes) for gigabytes in (24.0, 24.1, None)] == ["aim", "no", ""] and loading.least is None


def test_a_benchmark_is_run_and_its_lines_are_read(benchmark: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    table, goals = benchmark("table"), benchmark("goals")
    told = table.ran([sys.executable, "-c", "import sys; print('{\"a\": 1, \"b\": 2.5}' if sys.argv[1:] == ['--json'] else 'x')"])
    assert told.lines == [{"a": 1, "b": 2.5}] and told.status == 0 and told.command.startswith("python -c ")
    assert capsys.readouterr().err.startswith("running python -c ")
    wanted = [goals.Goal("what", 2.0, 3.0, "x", {"a": "1"}, "b")]
    (row,) = table.rows_of(wanted, told)
    assert (row["measured"], row["met"], row["note"], row["command"]) == (2.5, "least", "", told.command)
    (row,) = table.rows_of(wanted, table.ran([sys.executable, "-c", "print('{}'); raise SystemExit(3)"]))
    assert (row["measured"], row["met"], row["note"]) == (None, "", "failed with status 3")


def test_commands_are_shown_as_they_are_typed(benchmark: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    table = benchmark("table")
    ended = type("Ended", (), {"stdout": "", "returncode": 0})
    monkeypatch.setattr(table.subprocess, "run", lambda *args, **options: ended)
    assert table.ran([sys.executable, str(FOLDER / "request.py"), "--model", "a b"]).command == "python benchmarks/request.py --model 'a b'"
    assert table.ran([*table.PROGRAM, "bench", "--model", "x"]).command == "qwenaudio-np bench --model x"


def test_the_table_names_machine_goals_and_commands(benchmark: Callable[[str], Any]) -> None:
    table = benchmark("table")
    row = {"what": "speed", "least": 0.85, "aim": 1.0, "unit": "x", "measured": 0.91234, "met": "least", "note": "", "command": "run it"}
    bare = {**row, "least": None, "aim": None, "measured": None, "met": "", "note": "no PyTorch here"}
    head, empty, _, _, first, second = table.markdown([row, bare]).splitlines()
    assert f"instructions {table.kernels.get_isa()}" in head and "cores" in head and not empty
    assert first == "| speed | 0.85 x | 1 x | 0.912 x | least | `run it` |"
    assert second == "| speed |  |  | no PyTorch here |  | `run it` |"
    assert json.loads(json.dumps(table.machine()))["instructions"] == table.kernels.get_isa()


# --- the two benchmarks that time whole processes ---------------------------------------------------------------------------


def test_first_and_later_runs(benchmark: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    start = benchmark("start")
    runs = iter([("text\n", 9.0), ("text\n", 2.0), ("text\n", 1.0), ("text\n", 4.0)])
    monkeypatch.setattr(start, "timed", lambda command, cache: next(runs))
    first, second = start.lines(["x"], "cache", 3)
    assert (first["seconds"], second["seconds"]) == (9.0, 2.0)
    for wrong in ([("", 1.0)], [("text", 1.0), ("other", 1.0)]):
        runs = iter(wrong)
        with pytest.raises(SystemExit, match="not timed"):
            start.lines(["x"], "cache", 1)


def test_a_run_has_its_own_cache_and_is_waited_for(benchmark: Callable[[str], Any], tmp_path: Path) -> None:
    text, seconds = benchmark("start").timed([sys.executable, "-c", "import os; print(os.environ['XDG_CACHE_HOME'])"], str(tmp_path))
    assert text == f"{tmp_path}\n" and seconds > 0


def test_a_whole_request(benchmark: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    request = benchmark("request")

    def answer(load: float, encode: float, prefill: float, rate: float, tokens: int = 30) -> dict[str, Any]:
        timings = {"load": load, "encode": encode, "prefill": prefill}
        labels = {"model": "m", "weights": "int4", "prompt_ids": [1, 2, 3]}
        return {"token_ids": list(range(tokens)), "timings": timings, "tokens_per_second": rate, **labels}

    runs = iter([(answer(9, 9, 9, 1), 10**9), (answer(1, 2, 3, 4), 5 * 10**9), (answer(3, 1, 7, 6), 10**9), (answer(2, 4, 3, 5), 10**9)])
    monkeypatch.setattr(request, "watched", lambda command: next(runs))
    line = request.line(["x"], 3)
    assert line == {
        "model": "m", "weights": "int4", "peak GB": 5.0, "load s": 2, "encoder + prefill s": 7, "tokens/s": 5, "positions": 3,
    }  # fmt: skip
    runs = iter([(answer(1, 1, 1, 1, 29), 1)] * 2)
    with pytest.raises(SystemExit, match="30 tokens"):
        request.line(["x"], 1)


def test_the_memory_and_the_status_of_a_process(benchmark: Callable[[str], Any]) -> None:
    request = benchmark("request")
    assert request.watched([sys.executable, "-c", "print('{\"a\": 1}')"])[0] == {"a": 1}
    _, peak = request.watched([sys.executable, "-c", "x = bytearray(800_000_000); print('{}')"])
    assert 400e6 < peak < 2e9  # wide: the system may take pages back while they are filled, and a large process here counts too
    with pytest.raises(SystemExit, match="status 3"):
        request.watched([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_clip_is_as_long_as_it_says(benchmark: Callable[[str], Any], tmp_path: Path) -> None:
    import soundfile

    found = soundfile.info(benchmark("request").write_clip(str(tmp_path / "clip.wav")))
    assert (found.frames, found.samplerate, found.channels) == (round(5.9 * found.samplerate), 16000, 1)
