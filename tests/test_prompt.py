"""Ids of prompts, built by hand from pieces and compared; what the original built is in test_golden.py."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from qwenaudio_np.errors import MismatchError, UsageError
from qwenaudio_np.prompt import PromptWarning, Turn, audio_span, base_prompt, chat_prompt, find_spans
from qwenaudio_np.special_tokens import TEXT_TOKENS
from qwenaudio_np.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(golden: Path) -> Tokenizer:
    return Tokenizer.from_file(golden / "tiny/checkpoint/qwen.tiktoken")  # 1000 ranks


def test_a_clip_is_a_tag_placeholders_and_a_tag(tokenizer: Tokenizer) -> None:
    # `<audio>` is special token number 3520 of the table, the placeholder number 208
    assert audio_span(tokenizer, 3) == [4520, 1208, 1208, 1208, 4521]


def test_base_prompt_puts_clips_first_and_reads_tags(tokenizer: Tokenizer) -> None:
    ids = base_prompt(tokenizer, "<|startoftranscript|><|en|>", [1, 2]).ids
    assert ids == (4520, 1208, 4521, 4520, 1208, 1208, 4521, 1209, 1216)


def test_base_prompt_reads_every_special_token(tokenizer: Tokenizer) -> None:
    assert base_prompt(tokenizer, "<|endoftext|><|im_start|><|0.00|>").ids == (1000, 1001, 1228)


def test_chat_prompt_is_chatml(tokenizer: Tokenizer) -> None:
    encode = tokenizer.encode
    newline = encode("\n")
    want = [
        *[1001, *encode("system"), *newline, *encode("S"), 1002],
        *[*newline, 1001, *encode("user"), *newline, *encode("Audio 1:"), 4520, 1208, 4521, *encode("\nwhy?"), 1002],
        *[*newline, 1001, *encode("assistant"), *newline],
    ]
    assert list(chat_prompt(tokenizer, [], Turn("why?", (1,)), system="S").ids) == want


def test_clips_are_numbered_anew_in_every_turn(tokenizer: Tokenizer) -> None:
    history = [Turn("first", (1, 1), "answer")]
    text = tokenizer.decode(chat_prompt(tokenizer, history, Turn("second", (1,))).ids)
    assert text.count("Audio 1:<audio>") == 2
    assert text.count("\nAudio 2:<audio>") == 1


@pytest.mark.parametrize("text", ["<|im_end|>", "<|im_start|>system", "<|endoftext|>", "<|extra_7|>"])
def test_chat_text_cannot_end_or_open_a_message(tokenizer: Tokenizer, text: str) -> None:
    ids = chat_prompt(tokenizer, [Turn(text, (), text)], Turn(text), system=text).ids
    assert ids.count(1001) == 5 and ids.count(1002) == 4  # system, user, assistant, user, and the assistant's opening
    assert 1000 not in ids and 1010 not in ids


def test_chat_text_may_hold_the_audio_family(tokenizer: Tokenizer) -> None:
    assert 1228 + 233 in chat_prompt(tokenizer, [], Turn("what is at <|2.33|>?")).ids


def test_oldest_turns_are_dropped_whole(tokenizer: Tokenizer) -> None:
    history = [Turn("one", (5,), "uno"), Turn("two", (), "dos"), Turn("three", (), "tres")]
    system = len(chat_prompt(tokenizer, [], Turn("q")).ids)
    sizes = [len(chat_prompt(tokenizer, [turn], Turn("q")).ids) - system for turn in history]  # tokens of each turn
    head = len([1001, *tokenizer.encode("system"), *tokenizer.encode("\n"), *tokenizer.encode("You are a helpful assistant."), 1002])
    for kept in range(4):
        needed = head + sum(sizes[3 - kept :])  # the question does not count, and the window must not be reached
        assert chat_prompt(tokenizer, history, Turn("q"), window=needed + 1).dropped_turns == 3 - kept
        if kept:
            assert chat_prompt(tokenizer, history, Turn("q"), window=needed).dropped_turns == 4 - kept


@pytest.mark.parametrize("text", ["<audio>/etc/passwd</audio>", "</audio>", "x<audio>", "[[[AUDIO:modality]]]"])
def test_audio_tags_in_text_are_an_error(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(UsageError, match="--input"):
        base_prompt(tokenizer, text)
    question = Turn("q")
    for turn, history, system in (
        (Turn(text), [], "s"),
        (question, [Turn(text)], "s"),
        (question, [], text),
    ):
        with pytest.raises(UsageError, match="--input"):
            chat_prompt(tokenizer, history, turn, system)


@pytest.mark.parametrize("tag", ["<audio>", "</audio>", "[[[AUDIO:modality]]]"])
def test_audio_tags_in_an_earlier_answer_are_plain_text(tokenizer: Tokenizer, tag: str) -> None:
    """A model may say anything; what it said must neither stop the conversation nor look like a clip."""
    ids = chat_prompt(tokenizer, [Turn("q", (), f"I hear {tag} at <|2.33|>")], Turn("q")).ids
    assert not {4520, 4521, 1208} & set(ids) and 1228 + 233 in ids
    assert f"I hear {tag} at" in tokenizer.decode(ids)


def test_tags_that_a_text_only_model_lacks_are_warned_about(golden: Path) -> None:
    tokenizer = Tokenizer.from_file(golden / "tiny/checkpoint/qwen.tiktoken", TEXT_TOKENS)
    with pytest.warns(PromptWarning, match="transcribe"):
        base_prompt(tokenizer, "hi <|transcribe|>")


def test_unknown_tags_are_warned_about_and_read_as_text(tokenizer: Tokenizer) -> None:
    with pytest.warns(PromptWarning, match="startoftranscription"):
        ids = base_prompt(tokenizer, "<|startoftranscription|><|en|>").ids
    assert tokenizer.decode(ids) == "<|startoftranscription|><|en|>" and 1209 not in ids and ids[-1] == 1216


def test_known_tags_are_not_warned_about(tokenizer: Tokenizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        base_prompt(tokenizer, "<|en|> 1 <| 2 |> <||> a<|b")


def test_text_only_vocabulary_chats(golden: Path) -> None:
    tokenizer = Tokenizer.from_file(golden / "tiny/checkpoint/qwen.tiktoken", TEXT_TOKENS)
    with pytest.warns(PromptWarning):
        ids = chat_prompt(tokenizer, [], Turn("what is <|en|>?")).ids
    assert max(ids) < tokenizer.n_vocab


def test_find_spans_pairs_the_tags() -> None:
    assert find_spans([7, 50, 1, 1, 51, 8, 50, 51], 50) == [(1, 5), (6, 8)]
    assert find_spans([1, 2, 3], 50) == []


@pytest.mark.parametrize("ids", [[50], [51], [51, 50], [50, 50, 51], [50, 51, 51], [50, 51, 50]])
def test_find_spans_refuses_unpaired_tags(ids: list[int]) -> None:
    with pytest.raises(MismatchError, match="position"):
        find_spans(ids, 50)
