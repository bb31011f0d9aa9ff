"""The benchmark verb: what it validates, what it counts, what it prints. No timing is asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np import bench, ops
from qwenaudio_np.cli import main
from qwenaudio_np.errors import NumericsError, UsageError
from qwenaudio_np.prepare import prepare
from qwenaudio_np.quantised import Quantised


@pytest.fixture
def model(golden: Path, monkeypatch: pytest.MonkeyPatch) -> qwenaudio_np.QwenAudio:
    monkeypatch.setattr(bench.Ceilings, "beside", lambda self, run: (run(), 1e10, 1e11))
    return qwenaudio_np.load(golden / "tiny/checkpoint", backend="reference")


def test_stages_and_what_they_count(model: qwenaudio_np.QwenAudio) -> None:
    encoder, prefill, decoding = bench.bench(model, seconds=1.0, new_tokens=3, repeats=1)
    # tiny: state 48, 3 blocks, 80 mels; 1 s -> 100 frames -> T = 50, N = 25
    products = 2 * 50 * (4 * 48 * 48 + 2 * 48 * 192) * 3
    assert encoder.amount == 2 * 3 * (80 * 48 * 100 + 48 * 48 * 50) + products + 4 * 50 * 50 * 48 * 3 + 2 * 25 * 48 * 64
    # hidden 64, inner 192, 3 blocks, 4544 rows of lm_head; float32: 4 bytes each
    per_block = 64 * 192 + 192 + 64 * 64 + 3 * 64 * 192 + 2 * 64
    assert decoding.amount == 4 * (3 * per_block + 64 + 4544 * 64)
    assert prefill.unit == "op" and decoding.ceiling == 1e10 and all(stage.seconds > 0 for stage in (encoder, prefill, decoding))


def test_which_instructions_are_used_is_said(model: qwenaudio_np.QwenAudio) -> None:
    assert bench.instructions(model) == {}  # NumPy does not tell
    kernels = qwenaudio_np.load(model.labels["model"]).ops
    assert bench.instructions(model.__class__(model.config, model.weights, model.tokenizer, kernels)) == {"instructions": kernels.get_isa()}  # type: ignore[attr-defined]


def test_nothing_wrong_is_timed(model: qwenaudio_np.QwenAudio) -> None:
    class Wrong:
        def __getattr__(self, name: str) -> object:
            return (lambda x, w, b=None: 1.01 * ops.linear(x, w, b)) if name == "linear" else getattr(ops, name)

    model.ops = Wrong()  # type: ignore[assignment]
    with pytest.raises(NumericsError, match="not timed"):
        bench.bench(model, seconds=1.0, new_tokens=2, repeats=1)


def test_rows_of_a_quantised_weight_are_compared_as_they_are_stored() -> None:
    weight = ops.quantise(np.random.default_rng(0).standard_normal((80, 40)).astype(np.float32), 4)
    some = bench.first_rows(weight, 64)
    assert isinstance(some, Quantised) and some.shape == (64, 40)
    np.testing.assert_array_equal(some[:], weight[:64])
    assert bench.first_rows(weight, 96) is weight


@pytest.mark.parametrize("wrong", [{"seconds": 31}, {"seconds": 0.0}, {"new_tokens": 1}, {"repeats": 0}, {"seconds": float("nan")}])
def test_settings_that_mean_nothing(model: qwenaudio_np.QwenAudio, wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        bench.bench(model, **wrong)  # type: ignore[arg-type]


def test_the_verb_prints_json_lines_or_a_table(
    model: qwenaudio_np.QwenAudio, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "--model", str(golden / "tiny/checkpoint"), "--backend", "reference", "--seconds", "0.5", "-n", "2", "--repeats", "1"]
    assert main([*words, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["stage"].split()[0] for line in told] == ["encoder,", "prefill", "decoding,"]
    assert all(np.isclose(line["ratio"], line["amount"] / line["seconds"] / line["ceiling"]) for line in told)
    assert main(words) == 0
    assert "of plain memory reading" in capsys.readouterr().out


def test_a_matrix_of_zeros_is_no_mistake(model: qwenaudio_np.QwenAudio) -> None:
    name = "transformer.h.0.attn.c_proj.weight"
    zeros = {**model.weights, name: np.zeros_like(model.weights[name])}
    bench.validate(model.__class__(model.config, zeros, model.tokenizer, ops))  # type: ignore[arg-type]


def test_a_prompt_that_leaves_no_room_to_decode(model: qwenaudio_np.QwenAudio) -> None:
    length = len(prepare(model, bench.PROMPT, np.zeros(16000, np.float32)).prompt.ids)
    model.config = replace(model.config, text=replace(model.config.text, max_position_embeddings=length))
    with pytest.raises(UsageError, match=f"{length} positions"):
        bench.bench(model, seconds=1.0, new_tokens=2, repeats=1)


def test_memory_is_read_before_the_ceilings_take_theirs(model: qwenaudio_np.QwenAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    make = bench.Ceilings.__init__
    monkeypatch.setattr(bench.Ceilings, "__init__", lambda self, *rest: (told.append("ceilings"), make(self, *rest))[1])
    bench.bench(model, seconds=1.0, new_tokens=2, repeats=1, warmed=lambda: told.append("warmed"))
    assert told == ["warmed", "ceilings"]
