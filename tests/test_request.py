"""Whole requests through the Python interface, on the small checkpoints."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np.audio import load_clip
from qwenaudio_np.errors import ResourceError, UsageError
from qwenaudio_np.model import QwenAudio
from qwenaudio_np.prepare import prepare
from qwenaudio_np.prompt import PromptWarning
from qwenaudio_np.sources import AudioWarning, as_clip


@pytest.fixture(scope="module")
def model(golden: Path) -> QwenAudio:
    return qwenaudio_np.load(golden / "tiny/checkpoint", backend="reference")


@pytest.fixture(scope="module")
def tone(golden: Path) -> Path:
    return golden / "audio/tone.wav"


def test_a_result_says_where_it_came_from(model: QwenAudio, tone: Path) -> None:
    result = model.generate("why?", audio=[tone], max_new_tokens=4)
    assert result.labels == {"model": model.labels["model"], "backend": "reference", "weights": "float32", "kv": "float32"}
    assert list(result.timings) == ["audio", "encode", "prefill", "decode", "total"]
    assert result.timings["total"] == pytest.approx(sum(list(result.timings.values())[:-1]))
    assert len(result.token_ids) == 4 and result.stop_reason == "length"
    assert result.clips[0].path == str(tone)
    assert result.tokens_per_second > 0


def test_pieces_that_are_streamed_make_the_text(model: QwenAudio, tone: Path) -> None:
    pieces: list[str] = []
    result = model.generate("why?", audio=[tone], max_new_tokens=12, stream=pieces.append)
    assert len(pieces) > 2 and "".join(pieces).strip() == result.text


@pytest.mark.parametrize("make", [str, Path, load_clip, lambda path: load_clip(path).waveform, lambda path: BytesIO(path.read_bytes())])
def test_every_form_of_a_clip_gives_the_same_ids(model: QwenAudio, tone: Path, make: Any) -> None:
    want = model.generate("why?", audio=[tone], max_new_tokens=3).token_ids
    assert model.generate("why?", audio=[make(tone)], max_new_tokens=3).token_ids == want


def test_one_clip_needs_no_list(model: QwenAudio, tone: Path) -> None:
    want = model.generate("why?", audio=[tone], max_new_tokens=2).token_ids
    for one in (tone, str(tone), load_clip(tone), load_clip(tone).waveform):
        assert model.generate("why?", audio=one, max_new_tokens=2).token_ids == want


def test_an_unknown_option_is_refused(model: QwenAudio) -> None:
    with pytest.raises(TypeError, match="max_new_token"):
        model.generate("why?", max_new_token=3)


def test_memory_is_asked_for_before_it_is_taken(model: QwenAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwenaudio_np.request.available_bytes", lambda mapped: 1000)
    monkeypatch.setattr("qwenaudio_np.tracing.available_bytes", lambda mapped: 1000)
    with pytest.raises(ResourceError, match="not enough memory"):
        model.generate("x", max_new_tokens=1)
    with pytest.raises(ResourceError, match="not enough memory"):
        qwenaudio_np.trace(model, ids=[1, 2])
    assert model.generate("x", max_new_tokens=1, force=True).token_ids
    assert len(qwenaudio_np.trace(model, ids=[1, 2], force=True))


def test_something_else_is_no_clip() -> None:
    with pytest.raises(UsageError, match="int"):
        as_clip(5)


def test_a_cut_recording_is_warned_about(golden: Path) -> None:
    with pytest.warns(AudioWarning, match=r"1\.0048125 s of 31\.0048125 s dropped"):
        as_clip(golden / "audio/long31.flac")


def test_format_follows_the_checkpoint_the_task_and_the_option(model: QwenAudio, tone: Path) -> None:
    assert prepare(model, "why?").chat_format == "chatml"
    assert prepare(model, "why?", format="base").chat_format == "raw"
    assert prepare(model, audio=[tone], task="asr").chat_format == "raw"


def test_limits_follow_the_task_the_checkpoint_and_the_option(model: QwenAudio, tone: Path) -> None:
    assert (prepare(model, "x").max_new_tokens, prepare(model, "x").min_new_tokens) == (512, 0)
    assert prepare(model, "x", format="base").max_new_tokens == 256
    task = prepare(model, audio=[tone], task="scene")
    assert (task.max_new_tokens, task.min_new_tokens) == (10, 1)
    given = prepare(model, audio=[tone], task="scene", max_new_tokens=3, min_new_tokens=2)
    assert (given.max_new_tokens, given.min_new_tokens) == (3, 2)
    assert type(prepare(model, "x", max_new_tokens=np.int64(3)).max_new_tokens) is int  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "asr", "prompt": "x"}, "not both"),
        ({"task": "asr", "format": "chat"}, "base prompt"),
        ({"task": "asr", "system": "s"}, "ask with --prompt"),
        ({"prompt": "x", "language": "en"}, "--language belongs to a task"),
        ({"prompt": "x", "format": "html"}, "--format is 'html'"),
        ({"prompt": "x", "format": "base", "system": "s"}, "--system"),
        ({"prompt": "x", "format": "base", "history": [{"query": "q", "answer": "a"}]}, "--history"),
        ({"prompt": "x", "max_new_tokens": 0}, "--max-new-tokens is 0,"),
        ({"prompt": None}, "the prompt is a NoneType"),
        ({"prompt": "x", "history": "abc"}, "history must be a list"),
        ({"prompt": "x", "history": [{"query": "a"}]}, "history must be a list"),
        ({"prompt": "x", "history": {"query": "a", "answer": "b"}}, "history must be a list"),
        ({"task": "asr", "audio": None}, "task asr is about sound"),
        ({"prompt": "x", "max_new_tokens": -1}, "--max-new-tokens"),
        ({"prompt": "x", "min_new_tokens": -1}, "--min-new-tokens"),
        ({"prompt": "x", "max_new_tokens": 2, "min_new_tokens": 9}, "--min-new-tokens is 9, expected at most 2, the longest answer"),
        ({"prompt": "x", "min_new_tokens": 10**5000}, "--min-new-tokens is an int of too many digits to show"),
        ({"prompt": "", "format": "base"}, "the prompt has 0 tokens"),
    ],
)
def test_combinations_that_mean_nothing(model: QwenAudio, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        model.generate(**options)
    assert message in str(error.value)


def test_a_prompt_longer_than_the_context(model: QwenAudio) -> None:
    with pytest.raises(UsageError, match=r"8\d\d\d tokens, expected 1 to 8192"):
        model.generate("1" * 8300, max_new_tokens=1)


def test_ctrl_c_keeps_what_was_answered(model: QwenAudio) -> None:
    pieces: list[str] = []

    def press_after_three(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # a program that uses the package decides for itself
        model.generate("why?", max_new_tokens=50, stream=press_after_three)
    pieces.clear()
    result = model.generate("why?", max_new_tokens=50, stream=press_after_three, keep_interrupted=True)
    assert result.stop_reason == "interrupted"
    assert result.text == "".join(pieces).strip() != ""
    assert 3 <= len(result.token_ids) < 50


def test_several_clips_for_a_task_are_warned_about(model: QwenAudio, tone: Path) -> None:
    with pytest.warns(PromptWarning, match="2 clips stand in one prompt"):
        prepare(model, audio=[tone, tone], task="asr")


def test_dropped_turns_take_their_clips_along(golden: Path, tone: Path) -> None:
    model = qwenaudio_np.load(golden / "tiny/checkpoint", backend="reference")
    object.__setattr__(model.config.generation, "max_window_size", 100)
    history = [{"query": "x" * 80, "audio": [tone], "answer": "y"}, {"query": "q", "audio": [], "answer": "a"}]
    with pytest.warns(PromptWarning, match="1 oldest turn"):
        ready = prepare(model, "now", [tone], history=history)
    assert ready.prompt.dropped_turns == 1 and len(ready.clips) == 1
    assert model.generate("now", [tone], history=history[1:], max_new_tokens=1).prompt_ids == list(ready.prompt.ids)


def test_sampling_repeats_with_a_seed(model: QwenAudio) -> None:
    def ids(seed: int) -> list[int]:
        return model.generate("why?", max_new_tokens=6, temperature=1.0, seed=seed).token_ids

    assert ids(3) == ids(3) != ids(4)


def test_results_do_not_share_memory(model: QwenAudio, tone: Path) -> None:
    waveform = load_clip(tone).waveform.copy()
    before = model.generate("why?", [waveform], max_new_tokens=2)
    waveform[:] = 0.5
    assert not np.array_equal(before.clips[0].waveform, waveform)


@pytest.mark.parametrize(
    "options",
    [
        {"history": 5},
        {"history": [{"query": "q", "audio": 5, "answer": "a"}]},
        {"audio": 5},
        {"audio": np.float32(3)},
        {"system": 5},
        {"task": ["asr"]},
        {"format": ["chat"]},
        {"temperature": 10**400},
    ],
)
def test_things_of_another_type_are_refused_in_words(model: QwenAudio, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"expected|must be"):
        model.generate("why?", **options)
    assert model.generate("why?", history=None, max_new_tokens=1).token_ids


def test_what_is_too_long_is_refused_before_sound_is_encoded(model: QwenAudio, tone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QwenAudio, "encode_audio", None)
    with pytest.raises(UsageError, match="expected 1 to 8192"):
        model.generate("a " * 9000, audio=[tone])


@pytest.mark.parametrize("audio", [{"array": np.zeros(160), "sampling_rate": 16000}, b"RIFF", bytearray(b"RIFF")])
def test_what_holds_sound_in_another_form_is_refused_as_a_whole(model: QwenAudio, audio: Any) -> None:
    with pytest.raises(UsageError, match=f"audio is .*{type(audio).__name__}.*, expected a path.*; .*clip_from_array"):
        model.generate("why?", audio=audio)


def test_an_array_with_its_rate_is_told_what_makes_a_clip_of_both(model: QwenAudio) -> None:
    with pytest.raises(UsageError, match=r"audio holds a 'int', .*; of samples at another rate, .*clip_from_array\(samples, rate\)"):
        model.generate("why?", audio=(np.zeros(16000), 44100))


def test_a_prompt_without_tokens_asks_for_some(model: QwenAudio) -> None:
    with pytest.raises(UsageError, match=r"the prompt has 0 tokens, expected 1 to \d+ .*; give some text"):
        model.generate("", format="base")
