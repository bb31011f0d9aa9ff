"""The command line as its users meet it: answers, JSON, files, streams, terminals and Ctrl-C."""

from __future__ import annotations

import importlib
import io
import json
import os
import pty
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

import qwenaudio_np
from qwenaudio_np.model import QwenAudio
from tests.cli_tools import (
    CLIP,
    GOLDEN,
    TINY,
    Outcome,
    Run,
    assert_refused,
    environment,
    files_of,
    nothing_written,
    process,
    request,
    runner,
    shell,
    start,
    tracing,
)

LONG = 5000  # tokens that nobody waits for


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def case_words(folder: Path, tmp_path: Path) -> list[str]:
    """What a user types for a golden case."""
    case = json.loads((folder / "case.json").read_text())
    clips = [str(GOLDEN / name) for name in case["audio"]]
    if folder.name.startswith("asr"):
        return ["--task", "asr", "--input", *clips]
    if folder.name.startswith("text"):
        return ["--format", "base", "--prompt", case["prompt"]]
    words = ["--prompt", case["query"].split("</audio>\n")[-1], "--system", case["system"]]
    if not case.get("history"):
        return [*words, "--input", *clips]
    ((query, answer),) = case["history"]
    turns = [{"query": query.split("</audio>\n")[-1], "audio": clips, "answer": answer}]
    (tmp_path / "history.json").write_text(json.dumps(turns))
    return [*words, "--history", str(tmp_path / "history.json")]


CASES = [path for path in sorted(GOLDEN.glob("*/cases/*")) if path.name.startswith(("asr", "chat", "text"))]


# --- answers ---------------------------------------------------------------------------------------------------------


def test_there_are_golden_cases() -> None:
    assert len(CASES) > 10


@pytest.mark.parametrize("folder", CASES, ids=lambda path: f"{path.parent.parent.name}-{path.name}")
def test_what_a_user_types_gives_the_original_ids(folder: Path, run: Run, tmp_path: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    words = case_words(folder, tmp_path)
    outcome = run(*request(*words, "--json", model=folder.parent.parent / "checkpoint", tokens=12))
    report = json.loads(outcome.out)
    assert outcome.status == 0
    assert report["prompt_ids"] == case["input_ids"]
    assert report["token_ids"] == case["greedy_ids"][: len(report["token_ids"])]
    assert len(report["token_ids"]) == len(case["greedy_ids"]) or report["stop"] == "stop"
    assert [clip["tokens"] for clip in report["audio"]] == case["audio_span_tokens"]


def test_the_verb_may_be_left_out_and_underscores_are_hyphens(run: Run) -> None:
    plain = run(*request("-i", CLIP, "-p", "hello"))
    assert plain.status == 0 and plain.err == "" and plain.out.endswith("\n") and len(plain.out) > 2
    assert run("run", *request("-i", CLIP, "-p", "hello")) == plain
    assert run("--model", TINY, "--backend=reference", "--max_new_tokens=4", "--input", CLIP, "--prompt", "hello") == plain


def test_json_is_one_object_with_everything(run: Run) -> None:
    text = run(*request("-i", CLIP, CLIP, "-p", "hello")).out
    outcome = run(*request("-i", CLIP, CLIP, "-p", "hello", "--json"))
    report = json.loads(outcome.out)
    keys = {"text", "token_ids", "prompt_ids", "audio", "stop", "timings", "tokens_per_second", "model", "backend", "weights", "kv"}
    assert outcome.out.count("\n") == 1 and keys <= set(report)
    # 8531 samples: 53 mel frames, 27 positions, 13 vectors and the two rows around them.
    assert report["audio"] == [{"path": str(CLIP), "seconds": 8531 / 16000, "positions": 27, "tokens": 15}] * 2
    assert (report["stop"], report["model"], report["backend"], report["weights"]) == ("length", str(TINY), "reference", "float32")
    assert report["text"] + "\n" == text and len(report["token_ids"]) == 4
    times = report["timings"]
    assert set(times) == {"load", "audio", "encode", "prefill", "decode", "total"} and all(seconds > 0 for seconds in times.values())
    assert times["total"] == pytest.approx(sum(times.values()) - times["total"], abs=1e-5)
    assert report["tokens_per_second"] == pytest.approx(3 / times["decode"], rel=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
def test_backends_and_thread_counts_give_the_same_ids(run: Run, threads: int) -> None:
    folder = GOLDEN / "tiny" / "cases" / "asr_tone"
    expected = json.loads((folder / "case.json").read_text())["greedy_ids"]
    for backend in ("reference", "numba"):
        words = ["--task", "asr", "-i", CLIP, "--json", "--threads", threads]
        report = json.loads(run(*request(*words, backend=backend, tokens=12)).out)
        assert (report["backend"], report["token_ids"]) == (backend, expected)


def test_draws_repeat_with_a_seed(run: Run) -> None:
    def draw(seed: int, *words: object) -> str:
        return run(*request("-p", "hello", "--temperature", 3, "--seed", seed, *words, tokens=12)).out

    assert draw(1) == draw(1) != draw(2)
    assert draw(1, "--top-k", 1) == draw(2, "--top-p", 1e-9) == run(*request("-p", "hello", tokens=12)).out  # one candidate is left: greedy


def test_sampling_options_without_temperature_are_warned_about(run: Run) -> None:
    plain = run(*request("-p", "hello"))
    outcome = run(*request("-p", "hello", "--seed", 0, "--top-p", 0.5))
    assert (outcome.status, outcome.out) == (0, plain.out)
    assert outcome.err.startswith("warning: --top-p, --seed ") and outcome.err.count("\n") == 1
    assert run(*request("-p", "hello", "--seed", 0, "--temperature", 1)).err == ""


def test_an_unknown_tag_is_warned_about_once(run: Run) -> None:
    outcome = run(*request("-p", "<|startoftranscription|> or <|startoftranscription|>"))
    assert outcome.status == 0 and outcome.out != "\n"
    assert outcome.err.startswith("warning: '<|startoftranscription|>'") and outcome.err.count("\n") == 1


def test_a_long_clip_is_warned_about(run: Run) -> None:
    outcome = run(*request("-i", GOLDEN / "audio" / "long31.flac", "-p", "x", tokens=1))
    assert outcome.status == 0 and outcome.err.startswith("warning: ") and "1.0048125 s of 31.0048125 s dropped" in outcome.err


def test_the_model_may_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWENAUDIO_MODEL", str(TINY))
    assert run("-p", "hello", "-n", 4, "--backend", "reference") == run(*request("-p", "hello"))
    assert run("-p", "hello", "-m", "nowhere").status == 1  # the option wins


# --- what goes in through stdin, what comes out into files -----------------------------------------------------------


def test_stdin_brings_sound_or_a_prompt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def piped(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    plain = run(*request("-i", CLIP, "-p", "naïve?"))
    piped(CLIP.read_bytes())
    assert run(*request("-i", "-", "-p", "naïve?")) == plain
    piped("naïve?\n".encode())
    assert run(*request("-i", CLIP, "-p", "-")) == plain


def test_output_takes_text_and_json(run: Run, tmp_path: Path) -> None:
    plain = run(*request("-p", "hello"))
    target = tmp_path / "answer.txt"
    target.write_text("old")
    assert run(*request("-p", "hello", "-o", target)) == Outcome(0, "", "")
    assert files_of(tmp_path) == {"answer.txt": plain.out.encode()}
    assert run(*request("-p", "hello", "--json", "-o", target)) == Outcome(0, "", "")
    assert json.loads(target.read_text())["text"] + "\n" == plain.out


def test_a_random_checkpoint_answers(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    made = run("random_checkpoint", folder, "--size", "tiny", "--seed", 1)
    assert made == Outcome(0, "", "")
    assert run(*request("-i", CLIP, "-p", "hello", model=folder)).status == 0
    with nothing_written(tmp_path):
        assert_refused(run("random-checkpoint", folder), 2, "already holds a checkpoint", "--force")
    assert run("random-checkpoint", folder, "--seed", 1, "--force", "--verbose").status == 0


def test_info_for_people_and_programs(run: Run) -> None:
    told = run("info", TINY)
    report = json.loads(run("info", TINY, "--json").out)
    assert told.status == 0 and told.err == "" and "3 x float32" not in told.out
    with safetensors.safe_open(TINY / "model-00001-of-00002.safetensors", "numpy") as first:
        assert f"{len(first.keys())} x float32" in told.out
    count = sum(report["parameters"].values())
    assert report["weight_bytes"] == 4 * count and f"{count:,} parameters" in told.out
    assert report["memory_bytes"]["needed_by_positions"].keys() == {"2048", "8192"}
    assert report["decoder"]["hidden_size"] == 64 and report["encoder"]["n_state"] == 48


# --- trace -----------------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safetensors.safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in json.loads(file.metadata()["order"])}, file.metadata()


def test_a_trace_holds_the_tensors_of_the_original(run: Run, tmp_path: Path) -> None:
    folder, target = GOLDEN / "tiny" / "cases" / "asr_tone", tmp_path / "trace.safetensors"
    case = json.loads((folder / "case.json").read_text())
    (tmp_path / "ids.json").write_text(json.dumps(case["input_ids"]))
    ids = ["--ids", tmp_path / "ids.json", "-i", CLIP]
    assert run(*tracing(*ids, "--steps", 12, "--dtype", "float64", "-o", target)) == Outcome(0, "", "")
    tensors, metadata = read(target)
    expected = load_file(folder / "expected.safetensors")
    assert tensors["decoder.logits"].dtype == np.float64 and len(tensors["decoder.logits"]) == len(case["input_ids"])
    for name in set(expected) - {"decoder.logits_f64"}:
        wanted, got = expected[name], tensors[name]
        error = np.abs(got[-4:] - wanted).max() if name == "decoder.logits" else np.abs(got - wanted).max()
        assert error < 5e-4 * np.sqrt(np.mean(np.square(wanted, dtype=np.float64))), name
    assert tensors["generate.ids"].tolist() == case["greedy_ids"] and tensors["prompt.ids"].tolist() == case["input_ids"]
    assert set(tensors) == set(load_file(target))
    assert (metadata["backend"], metadata["weights"], metadata["dtype"]) == ("reference", "float32", "float64")
    assert (metadata["qwenaudio_np"], metadata["numpy"]) == (qwenaudio_np.__version__, np.__version__)
    assert len(metadata["config_sha256"]) == 64
    assert sorted(files_of(tmp_path)) == ["ids.json", "trace.safetensors"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_with_keys_and_values_in_bfloat16(run: Run, tmp_path: Path, dtype: str) -> None:
    words = ["-p", "hello", "-i", CLIP, "--dtype", dtype]
    assert run(*tracing(*words, "-o", tmp_path / "full")).status == 0
    assert run(*tracing(*words, "--kv", "bfloat16", "-o", tmp_path / "half")).status == 0
    (full, about_full), (half, about_half) = read(tmp_path / "full"), read(tmp_path / "half")
    assert (about_full["kv"], about_half["kv"]) == (dtype, "bfloat16")
    for name in full:
        assert half[name].dtype == full[name].dtype
    first = [half["decoder.h.0.key_cache"], full["decoder.h.0.key_cache"]]  # nothing was rounded before these
    assert not (first[0].astype(np.float32).view(np.uint32) & 0xFFFF).any()
    np.testing.assert_allclose(*first, rtol=2**-8)
    assert np.abs(half["decoder.logits"] - full["decoder.logits"]).max() > 0


def test_a_trace_of_a_prompt_is_that_of_its_ids(run: Run, tmp_path: Path) -> None:
    prompt = json.loads(run(*request("-p", "hello", "-i", CLIP, "--json")).out)["prompt_ids"]
    (tmp_path / "ids.json").write_text(json.dumps(prompt))
    assert run(*tracing("-p", "hello", "-i", CLIP, "-o", tmp_path / "a")).status == 0
    assert run(*tracing("--ids", tmp_path / "ids.json", "-i", CLIP, "-o", tmp_path / "b")).status == 0
    (first, about_first), (second, about_second) = read(tmp_path / "a"), read(tmp_path / "b")
    assert about_first == about_second and list(first) == list(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)


# --- a process of its own: streams -----------------------------------------------------------------------------------


def test_a_process_says_nothing_but_the_answer(run: Run) -> None:
    assert process(request("-i", str(CLIP), "-p", "hello")) == run(*request("-i", CLIP, "-p", "hello"))


def test_help_needs_no_numpy_and_no_model() -> None:
    code = "import atexit, sys\natexit.register(lambda: print(sorted({'numpy', 'numba', 'soundfile'} & set(sys.modules)), file=sys.stderr))"
    outcome = process(["--help"], code)
    assert (outcome.status, outcome.err) == (0, "[]\n") and "random-checkpoint" in outcome.out


def test_no_words_show_the_short_usage(run: Run) -> None:
    outcome = run()
    assert (outcome.status, outcome.out) == (2, "") and outcome.err.startswith("usage: qwenaudio-np ") and outcome.err.count("\n") < 5


def test_a_reader_that_leaves_is_no_error() -> None:
    words = request("-p", "hello", tokens=LONG)
    assert shell('set -o pipefail; "$@" | head -c 10', *words) == Outcome(0, process(request("-p", "hello", tokens=20)).out[:10], "")
    assert shell('set -o pipefail; "$@" | true', "--help").status == 0


@pytest.mark.parametrize("words", [request("-p", "x"), ["--version"]], ids=["run", "version"])
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_a_closed_or_full_stdout_is_an_error(words: list[str], where: str) -> None:
    if where == ">/dev/full" and not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full here")
    outcome = shell(f'"$@" {where}', *words)
    assert_refused(outcome, 1, "standard output")


def test_stdin_and_stderr_may_be_closed() -> None:
    words = request("-i", str(CLIP), "-p", "hello")
    assert shell('"$@" <&- 2>&-', *words) == process(words)
    assert shell('"$@" 2>&-', *request("-i", "nowhere", "-p", "x")).status == 1
    assert_refused(shell('"$@" <&-', *request("-i", "-", "-p", "x")), 1, "standard input", "closed")


def test_a_plain_c_locale_changes_nothing(tmp_path: Path) -> None:
    clip = tmp_path / "ü😀.wav"
    clip.write_bytes(CLIP.read_bytes())
    words = request("-i", str(clip), "-p", "naïve café 你好", "--json", tokens=12)
    ascii_only = environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    here, there = json.loads(process(words, env=environment(PYTHONUTF8="1")).out), json.loads(process(words, env=ascii_only).out)
    assert [here[key] for key in ("text", "prompt_ids")] == [there[key] for key in ("text", "prompt_ids")]
    assert os.fsencode(here["audio"][0]["path"]) == there["audio"][0]["path"].encode("utf-8", "surrogateescape") == os.fsencode(clip)


def test_json_stays_json_in_any_encoding(tmp_path: Path) -> None:
    clip = tmp_path / "ü😀.wav"
    clip.write_bytes(CLIP.read_bytes())
    outcome = process(request("-i", str(clip), "-p", "x", "--json"), env=environment(PYTHONIOENCODING="latin-1", PYTHONUTF8="1"))
    assert json.loads(outcome.out)["audio"][0]["path"] == str(clip) and outcome.out.isascii()


def test_progress_shows_on_a_terminal_only() -> None:
    ours, theirs = pty.openpty()
    words = request("-i", str(CLIP), "-p", "hello")
    outcome = process(words, stderr=theirs)
    told = os.read(ours, 1 << 16).decode()
    assert outcome.status == 0 and len(outcome.out) > 1
    assert "opening" in told and "encoding" in told and "tokens/s" in told
    assert process([*words, "--quiet"], stderr=theirs).status == 0
    os.close(theirs)
    with pytest.raises(OSError):  # the other end is gone, and nothing was left in it
        os.read(ours, 1)
    os.close(ours)


def test_verbose_shows_progress_without_a_terminal(run: Run) -> None:
    assert "prompt of" in run(*request("-p", "x", "--verbose")).err


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

INTERRUPTED_AT_IMPORT = """
import os, signal, sys
class Hook:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Hook())"""


@pytest.mark.parametrize("name", ["qwenaudio_np.parser", "numpy.linalg", "datetime", "numba._devicearray"])
def test_ctrl_c_while_importing(name: str) -> None:
    """NumPy imports `datetime` from C, and Numba `_devicearray`: whatever goes wrong there becomes an ImportError."""
    outcome = process(request("-i", str(CLIP), "-p", "x", backend="numba"), INTERRUPTED_AT_IMPORT.format(name=name))
    assert outcome == Outcome(130, "", "interrupted\n")


def interrupting(function: Callable[..., Any], call: int = 1) -> Callable[..., Any]:
    """The function, but Ctrl-C is pressed when it is called for the n-th time."""
    calls = 0

    def pressed(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    return pressed


PLACES = {"as_clip": "inputs", "load": "commands", "answer": "commands"}
STAGES = ("encode_audio", "prefill", "logits")


@pytest.mark.parametrize("name", [*PLACES, *STAGES])
def test_ctrl_c_before_the_first_word_leaves_nothing(name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder: Any = QwenAudio if name in STAGES else importlib.import_module(f"qwenaudio_np.{PLACES[name]}")
    monkeypatch.setattr(holder, name, interrupting(getattr(holder, name)))
    with nothing_written(tmp_path):
        assert run(*request("-i", CLIP, "-p", "x", "-o", tmp_path / "answer.txt")) == Outcome(130, "", "interrupted\n")


@pytest.mark.parametrize("way", ["stdout", "output", "json"])
def test_ctrl_c_while_answering_keeps_what_there_is(way: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three = run(*request("-p", "hello", tokens=3)).out
    monkeypatch.setattr(QwenAudio, "step", interrupting(QwenAudio.step, call=3))
    target = tmp_path / "answer"
    outcome = run(*request("-p", "hello", *{"stdout": [], "output": ["-o", target], "json": ["--json"]}[way]))
    assert outcome.status == 130 and outcome.err == "interrupted; what was answered so far is kept\n"
    if way == "json":
        report = json.loads(outcome.out)
        assert (report["text"] + "\n", len(report["token_ids"]), report["stop"]) == (three, 3, "interrupted")
    else:
        assert (target.read_text() if way == "output" else outcome.out) == three


def test_ctrl_c_in_a_trace_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safetensors.numpy.save_file", interrupting(lambda tensors, path, metadata: Path(path).touch()))
    with nothing_written(tmp_path):
        assert run(*tracing("-p", "x", "-o", tmp_path / "trace")) == Outcome(130, "", "interrupted\n")


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_text_streams_and_ctrl_c_ends_a_process_within_a_second(backend: str) -> None:
    with start(request("-p", "hello", backend=backend, tokens=LONG), bufsize=0) as child:
        assert child.stdout
        first = child.stdout.read(1)  # arrives while the rest is still being computed
        child.send_signal(signal.SIGINT)
        begin = time.perf_counter()
        out, err = child.communicate(timeout=60)
        assert time.perf_counter() - begin < 1
    assert (child.returncode, err) == (130, b"interrupted; what was answered so far is kept\n")
    assert first != b"\n" and out.endswith(b"\n")


def test_sigterm_ends_a_process_as_ever(tmp_path: Path) -> None:
    with start(request("-p", "hello", "-o", str(tmp_path / "answer"), "-v", tokens=LONG)) as child:
        assert child.stderr
        while not child.stderr.readline().startswith(b"answering"):
            pass
        child.terminate()
    assert child.returncode == -signal.SIGTERM and files_of(tmp_path) == {}
