"""What the command line answers: ids, text, JSON and warnings; prompts and sound through stdin, answers into files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.cli_tools import CLIP, GOLDEN, TINY, Outcome, Run, files_of, request, runner


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
    monkeypatch.setenv("QWENAUDIO_MODEL", "nowhere")
    refused = run("-p", "hello")
    assert refused.status == 1 and "config.json': no such file; check the path in the environment variable QWENAUDIO_MODEL" in refused.err


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
