"""Traces through the Python interface; their values are checked in test_golden.py, the file form in the command line's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np import tracing
from qwenaudio_np.audio import load_clip
from qwenaudio_np.errors import MismatchError, UsageError
from qwenaudio_np.memory import cache_bytes
from qwenaudio_np.tracing import describe


@pytest.fixture(scope="module", params=["float32", "float64"])
def model(golden: Path, request: pytest.FixtureRequest) -> qwenaudio_np.QwenAudio:
    return qwenaudio_np.load(golden / "tiny/checkpoint", backend="reference", dtype=request.param)


def test_names_shapes_and_types(model: qwenaudio_np.QwenAudio, golden: Path) -> None:
    # tone.wav: 8531 samples -> 53 frames -> T = 27 -> N = 13; widths of the tiny checkpoint: 80 mels, 48, 64, 4 heads of 16
    taps = qwenaudio_np.trace(model, audio=[golden / "audio/tone.wav"], prompt="why?", format="base", steps=3)
    length = len(taps["prompt.ids"])
    assert length == 13 + 2 + len(model.tokenizer.encode("why?"))
    want = {
        "prompt.ids": (length,),
        "audio.0.mel": (80, 54),
        "audio.0.conv1": (48, 54),
        "audio.0.conv2": (48, 27),
        **{f"audio.0.blocks.{i}": (27, 48) for i in range(3)},
        "audio.0.ln_post": (13, 48),
        "audio.0.proj": (13, 64),
        "decoder.embed": (length, 64),
        **{f"decoder.h.{i}": (length, 64) for i in range(3)},
        "decoder.ln_f": (length, 64),
        "decoder.logits": (length, 4544),
        **{f"decoder.h.{i}.{part}_cache": (length, 4, 16) for i in range(3) for part in ("key", "value")},
        "generate.logits": (3, 4544),
        "generate.ids": (3,),
    }
    assert {name: value.shape for name, value in taps.items()} == want
    assert list(taps) == list(want)  # in the order of computation
    assert {value.dtype for name, value in taps.items() if "ids" not in name} == {model.dtype}


def test_ids_and_prompt_are_two_ways_to_the_same(model: qwenaudio_np.QwenAudio, golden: Path) -> None:
    clip = golden / "audio/tone.wav"
    by_prompt = qwenaudio_np.trace(model, audio=[clip], prompt="why?")
    by_ids = qwenaudio_np.trace(model, ids=by_prompt["prompt.ids"].tolist(), audio=[clip])
    assert all(np.array_equal(by_prompt[name], by_ids[name]) for name in by_prompt)


def test_arrays_lie_in_c_order(model: qwenaudio_np.QwenAudio) -> None:
    """Files are written as memory lies."""
    assert all(value.flags.c_contiguous for value in qwenaudio_np.trace(model, ids=[1, 2, 3]).values())


def test_a_trace_is_a_copy(model: qwenaudio_np.QwenAudio) -> None:
    taps = qwenaudio_np.trace(model, ids=[1, 2, 3], steps=2)
    before = taps["decoder.h.0.key_cache"].copy()
    qwenaudio_np.trace(model, ids=[4, 5, 6], steps=2)
    assert np.array_equal(before, taps["decoder.h.0.key_cache"]) and len(before) == 3


def test_a_task_cannot_stop_at_once(model: qwenaudio_np.QwenAudio, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an answer."""
    shortest: list[int] = []
    monkeypatch.setattr(tracing, "generate_ids", lambda *rest: shortest.append(rest[-1]) or iter([(1, np.zeros(1))]))
    qwenaudio_np.trace(model, audio=[golden / "audio/tone.wav"], task="asr", steps=2)
    qwenaudio_np.trace(model, ids=[1, 2], steps=2)
    assert shortest == [1, 0]


def test_a_trace_may_be_longer_than_an_answer(model: qwenaudio_np.QwenAudio) -> None:
    """`steps` is its limit, not the longest answer."""
    longest = model.config.generation.max_new_tokens
    taps = qwenaudio_np.trace(model, prompt="x", format="base", steps=longest + 44, min_new_tokens=longest + 44)
    assert len(taps["generate.ids"]) == longest + 44


def test_not_enough_memory_for_what_a_trace_keeps(model: qwenaudio_np.QwenAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(tracing, "needed_bytes", lambda config, kept, *rest: asked.append(kept) or 0)
    kept = sum(value.nbytes for name, value in qwenaudio_np.trace(model, ids=range(1, 40)).items() if name != "prompt.ids")
    assert kept < asked[0] < 3 * kept


def test_errors(model: qwenaudio_np.QwenAudio, golden: Path) -> None:
    with pytest.raises(UsageError, match="not both"):
        qwenaudio_np.trace(model, ids=[1], prompt="x")
    with pytest.raises(UsageError, match="steps is -1"):
        qwenaudio_np.trace(model, ids=[1], steps=-1)
    with pytest.raises(UsageError, match=r"steps is 1\.5"):
        qwenaudio_np.trace(model, ids=[1], steps=1.5)  # type: ignore[arg-type]
    for ids in (5, [2**70]):
        with pytest.raises(UsageError, match="ids must be"):
            qwenaudio_np.trace(model, ids=ids)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="got 1 to 99999"):
        qwenaudio_np.trace(model, ids=np.array([1, 99999]))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="got 1 to an int of too many digits"):
        qwenaudio_np.trace(model, ids=[1, 10**5000])
    with pytest.raises(UsageError, match="nothing to trace"):
        qwenaudio_np.trace(model)
    with pytest.raises(UsageError, match="whole numbers"):
        qwenaudio_np.trace(model, ids=[1, 2.5])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="steps says how many"):
        qwenaudio_np.trace(model, prompt="x", max_new_tokens=3)


def test_spans_that_do_not_fit_are_said_before_sound_is_encoded(
    model: qwenaudio_np.QwenAudio, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.__class__, "encode_audio", lambda *_: pytest.fail("encoded"))
    with pytest.raises(MismatchError, match="0 audio spans but 1 clips"):
        qwenaudio_np.trace(model, ids=[1], audio=[golden / "audio/tone.wav"])
    begin = model.audio_config().audio_start_id
    with pytest.raises(MismatchError, match="audio span 1 has 3 positions but its clip gives"):
        qwenaudio_np.trace(model, ids=[begin, 5, begin + 1], audio=[golden / "audio/tone.wav"])


def test_a_clip_that_stands_twice_is_traced_twice(model: qwenaudio_np.QwenAudio, golden: Path) -> None:
    clip = load_clip(golden / "audio/tone.wav")
    taps = qwenaudio_np.trace(model, prompt="x", audio=[clip, clip])
    np.testing.assert_array_equal(taps["audio.0.blocks.0"], taps["audio.1.blocks.0"])


def test_a_folders_name_need_not_be_text(model: qwenaudio_np.QwenAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model.labels, "model", "tiny\udcff")
    assert describe(model, {})["model"] == "tiny\\udcff"


def test_the_description_holds_strings_only(model: qwenaudio_np.QwenAudio) -> None:
    taps = qwenaudio_np.trace(model, ids=[1, 2])
    told = describe(model, taps)
    assert all(isinstance(value, str) for value in told.values())
    assert json.loads(told["order"]) == list(taps)
    assert told["numba"][0].isdigit() and told["numpy"] == np.__version__
    assert told["dtype"] == str(model.dtype) and told["backend"] == "reference" and len(told["config_sha256"]) == 64


@pytest.mark.parametrize("ids", [{1: 2}, {1, 2}, {1: 2}.keys()])
def test_ids_have_an_order(model: qwenaudio_np.QwenAudio, ids: Any) -> None:
    with pytest.raises(UsageError, match="ids must be whole numbers in a list"):
        qwenaudio_np.trace(model, ids=ids)
    assert qwenaudio_np.trace(model, ids=(n for n in (1, 2)))["prompt.ids"].tolist() == [1, 2]


def test_the_memory_of_a_trace_counts_its_steps(model: qwenaudio_np.QwenAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("qwenaudio_np.tracing.require_memory", lambda needed, there: asked.append(needed))
    for steps in (0, 3, 10**9):
        monkeypatch.setattr("qwenaudio_np.tracing.generate_ids", lambda *_: [(0, np.zeros(1))])
        qwenaudio_np.trace(model, ids=[1, 2], steps=steps)
    text, size = model.config.text, model.dtype.itemsize
    of_one_more = cache_bytes(text, 1, size) + size * (3 * (text.num_hidden_layers + 1) * text.hidden_size + 2 * text.vocab_size)
    assert asked[1] - asked[0] >= 3 * 2 * size * text.vocab_size + cache_bytes(text, 3, size)
    assert asked[2] < asked[0] + of_one_more * text.max_position_embeddings * 100  # no more steps than there are positions
