"""Conversations through the Python interface: what is remembered, what is computed once, what may be taken out and put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np.cache import Memory
from qwenaudio_np.errors import UsageError
from qwenaudio_np.model import QwenAudio
from qwenaudio_np.sources import as_clip


@pytest.fixture(scope="module")
def model(golden: Path) -> QwenAudio:
    return qwenaudio_np.load(golden / "tiny/checkpoint", backend="reference")


@pytest.fixture(scope="module")
def tone(golden: Path) -> Path:
    return golden / "audio/tone.wav"


def test_chat_remembers(model: QwenAudio, tone: Path) -> None:
    chat = model.chat()
    first = chat.ask("what is it?", audio=[tone], max_new_tokens=5)
    second = chat.ask("are you sure?", max_new_tokens=5)
    written = [{"query": "what is it?", "audio": [str(tone)], "answer": first.text}]
    assert second.prompt_ids == model.generate("are you sure?", history=written, max_new_tokens=1).prompt_ids
    assert [turn["query"] for turn in chat.history] == ["what is it?", "are you sure?"]


def test_turns_can_be_taken_back_and_put_in(model: QwenAudio, tone: Path) -> None:
    chat = model.chat()
    chat.ask("what is it?", audio=[tone], max_new_tokens=3)
    saved = list(chat.history)
    want = chat.ask("sure?", max_new_tokens=3)
    chat.history.pop()
    assert chat.ask("sure?", max_new_tokens=3).prompt_ids == want.prompt_ids
    other = model.chat()
    other.history += saved
    assert other.ask("sure?", max_new_tokens=3).token_ids == want.token_ids
    heard = list(other._memory.sounds)
    other.ask("why?", max_new_tokens=3)
    assert list(other._memory.sounds) == heard, "a clip of a turn that was put in is read and encoded once"
    assert len(other._heard) == len(other.history) == 3


def test_sounds_of_turns_that_left_the_window_are_let_go(model: QwenAudio) -> None:
    memory, clips = Memory(), [as_clip(np.zeros(1600, np.float32)) for _ in range(2)]
    model.generate("a", clips, max_new_tokens=1, memory=memory)
    assert len(memory.sounds) == 2
    model.generate("a", clips[1:], max_new_tokens=1, memory=memory)
    assert [clip for clip, _ in memory.sounds] == clips[1:]


def test_a_later_turn_computes_only_what_is_new(model: QwenAudio, tone: Path, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question through a conversation, and once more from nothing: the same ids, but fewer rows through the decoder."""
    from qwenaudio_np import model as module

    rows: list[int] = []
    encoded: list[int] = []
    decode, encode = module.decode, module.encode_clip
    monkeypatch.setattr(module, "decode", lambda x, *rest: (rows.append(len(x)), decode(x, *rest))[1])
    monkeypatch.setattr(module, "encode_clip", lambda mel, n, *rest: (encoded.append(n), encode(mel, n, *rest))[1])
    chat = model.chat()
    history: list[dict[str, Any]] = []
    questions = [("what is it?", [tone]), ("sure?", []), ("and this?", [golden / "audio/speech.flac"]), ("so?", [])]
    for turn, (query, audio) in enumerate(questions):
        rows.clear(), encoded.clear()
        got = chat.ask(query, audio=audio, max_new_tokens=6)
        spent, heard = rows[0], list(encoded)
        want = model.generate(query, audio, history=history, max_new_tokens=6)
        assert (got.token_ids, got.prompt_ids) == (want.token_ids, want.prompt_ids)
        if turn in (1, 3):
            assert spent < 50 < len(got.prompt_ids) and heard == []
        if turn == 2:  # beside the longer clip the first one sees a frame of its own silence: it is heard anew, and all after it
            assert heard == [8531, 85280] and spent > 100
        history.append({"query": query, "audio": audio, "answer": got.text})


def test_spare_room_of_the_cache_is_no_memory_that_was_taken(model: QwenAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second turn asks for its positions but those that are kept; the cache has room for more, which the system has not given."""
    needed: list[int] = []
    monkeypatch.setattr("qwenaudio_np.request.require_memory", lambda wanted, available: needed.append(wanted))
    memory = Memory()
    model.generate("what is it?", max_new_tokens=2, memory=memory)
    assert memory.past
    kept = sum(array.nbytes for layer in range(model.config.text.num_hidden_layers) for array in memory.past.cache.view(layer))
    assert kept < memory.past.cache.nbytes
    model.generate("and this?", max_new_tokens=2)
    model.generate("and this?", max_new_tokens=2, memory=memory)
    assert needed[1] - needed[2] == kept


def test_an_interrupted_turn_leaves_no_inputs_without_their_keys(model: QwenAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the last key of another prompt and the note of what they are: the old prompt is computed anew, not looked up."""
    want = model.generate("why is it so?", max_new_tokens=4).token_ids
    memory = Memory()
    model.generate("why is it so?", max_new_tokens=4, memory=memory)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("qwenaudio_np.request.Past", interrupt)
        model.generate("entirely different words, many of them", max_new_tokens=1, memory=memory)
    assert model.generate("why is it so?", max_new_tokens=4, memory=memory).token_ids == want


def interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_a_turn_that_is_changed_in_place_is_read_anew(model: QwenAudio, tone: Path, golden: Path) -> None:
    chat = model.chat()
    history = chat.history
    chat.ask("what is it?", audio=[tone], max_new_tokens=2)
    assert chat.history is history
    chat.history[0]["audio"] = [str(golden / "audio/silence.wav")]
    assert [clip.path for clip in chat.ask("sure?", max_new_tokens=2).clips] == [str(golden / "audio/silence.wav")]
    chat.history = tuple(chat.history[1:])  # type: ignore[assignment]
    assert chat.ask("sure?", max_new_tokens=2).clips == [] and len(chat.history) == 2


@pytest.mark.parametrize("name", ["format", "system", "history", "memory"])
def test_a_chat_brings_its_own(model: QwenAudio, name: str) -> None:
    with pytest.raises(UsageError, match=f"a chat has its own {name}; "):
        model.chat().ask("why?", **{name: None})


def test_a_task_is_no_turn(model: QwenAudio, tone: Path) -> None:
    with pytest.raises(UsageError, match="a task is a base prompt, which has no turns"):
        model.chat().ask("", audio=tone, task="asr")
