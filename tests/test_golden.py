"""The 23 golden cases: what the original implementation computed, from words and sound files to greedy ids.

The ids are laid out by the package from the request as a person makes it (clips, question, history), never taken from the case;
five of them have ids alone and no words.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from qwenaudio_np.audio import Clip, load_clip
from qwenaudio_np.tracing import trace
from tests.make_checkpoint import distance, open_model

GOLDEN = Path(__file__).resolve().parent / "golden"
CASES = sorted(path.parent for path in GOLDEN.glob("*/cases/*/case.json"))
STEPS = 12
FLOAT32_MEL = 5e-4  # of the RMS: the original's float32 Fourier transform is that noisy near the floor
FLOAT32 = 1e-4
FLOAT64 = 1e-11
FLOAT64_WITH_AUDIO = 5e-5  # the original's float64 run starts from its float32 mel

pytestmark = pytest.mark.usefixtures("golden")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parts[-3]}-{path.name}")


@functools.cache
def _clip(name: str) -> Clip:
    return load_clip(GOLDEN / name)


def _split(text: str) -> tuple[list[Clip], str]:
    """The original's way of writing a request, clips as paths in the text -> clips and text."""
    names = re.findall(r"<audio>(.*?)</audio>", text)
    return [_clip(name) for name in names], re.sub(r"(Audio \d+:)?<audio>.*?</audio>\n?", "", text)


def _request(facts: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `trace` for a case."""
    if facts["prompt"] is None:
        return {"ids": facts["input_ids"]}
    if "query" not in facts:
        clips, text = _split(facts["prompt"])
        return {"prompt": text, "audio": clips, "format": "base"}
    clips, text = _split(facts["query"])
    history = [{"query": _split(query)[1], "audio": _split(query)[0], "answer": answer} for query, answer in facts["history"] or []]
    return {"prompt": text, "audio": clips, "format": "chat", "system": facts["system"], "history": history}


def _facts(case: Path) -> dict[str, Any]:
    return json.loads((case / "case.json").read_text(encoding="utf-8"))


def test_all_cases_are_here() -> None:
    assert len(CASES) == 23
    assert sum(_facts(case)["prompt"] is None for case in CASES) == 5


def test_a_request_is_taken_apart_as_it_was_put_together() -> None:
    facts = _facts(GOLDEN / "tiny" / "cases" / "chat_two_audios")
    request = _request(facts)
    assert [clip.path for clip in request["audio"]] == [str(GOLDEN / name) for name in facts["audio"]]
    assert request["prompt"] == "Which is louder?"


@every_case
def test_float32(case: Path, ops: Any) -> None:
    """Prompt ids and greedy ids equal, every tensor within 1e-4 of its RMS (the mel 5e-4)."""
    facts = _facts(case)
    found = trace(open_model(case.parents[1] / "checkpoint", ops, np.float32), steps=STEPS, **_request(facts))
    assert found["prompt.ids"].tolist() == facts["input_ids"]
    assert found["generate.ids"].tolist() == facts["greedy_ids"]
    expected = safetensors.numpy.load_file(case / "expected.safetensors")
    expected.pop("decoder.logits_f64")
    found["decoder.logits"] = found["decoder.logits"][-4:]
    assert all(found[name].dtype == np.float32 for name in expected)
    off = {name: distance(found[name], values) for name, values in expected.items()}
    assert not {name: d for name, d in off.items() if not d <= (FLOAT32_MEL if name.endswith(".mel") else FLOAT32)}


@every_case
def test_float64(case: Path, ops: Any) -> None:
    """The last logits of a run in float64 all through."""
    facts = _facts(case)
    found = trace(open_model(case.parents[1] / "checkpoint", ops, np.float64), **_request(facts))
    expected = safetensors.numpy.load_file(case / "expected.safetensors")["decoder.logits_f64"]
    assert all(values.dtype == np.float64 for name, values in found.items() if name != "prompt.ids")
    assert distance(found["decoder.logits"][-4:], expected) <= (FLOAT64_WITH_AUDIO if facts["audio"] else FLOAT64)


@every_case
def test_every_expected_tensor_is_traced(case: Path) -> None:
    """A case expects all that flows through the network: so that no tensor is left out of the comparison."""
    names = set(safetensors.numpy.load_file(case / "expected.safetensors"))
    config = json.loads((case.parents[1] / "checkpoint" / "config.json").read_text())
    clips, layers = len(_facts(case)["audio"]), config["audio"]["n_layer"]
    sound = {f"audio.{k}.{part}" for k in range(clips) for part in ("mel", "conv1", "conv2", "ln_post", "proj")}
    sound |= {f"audio.{k}.blocks.{i}" for k in range(clips) for i in range(layers)}
    assert sound <= names
    assert {f"decoder.h.{i}" for i in range(config["num_hidden_layers"])} <= names
    assert {"decoder.ln_f", "decoder.logits", "decoder.logits_f64", "generate.logits"} <= names
    assert {"decoder.h.0.key_cache", "decoder.h.0.value_cache"} <= names
