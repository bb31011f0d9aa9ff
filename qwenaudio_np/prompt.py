"""Text, tags and clips -> token ids, in the two forms the models were trained with.

    base   <audio>...</audio> TEXT                    TEXT is usually a row of tags, see tasks.py
    chat   ChatML: system, earlier turns, the question; each turn may bring clips, numbered anew in every turn

A clip stands in the ids as `<audio>`, one placeholder per audio vector, `</audio>`. Its path never does: paths come from the
caller, and nothing that is written in a prompt is ever opened. Source: qwen_generation_utils.py, make_context.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from qwenaudio_np.errors import MismatchError, UsageError, shown
from qwenaudio_np.special_tokens import AUDIO_END, AUDIO_FAMILY, AUDIO_PLACEHOLDER, AUDIO_START, IM_END, IM_START
from qwenaudio_np.tokenizer import Tokenizer

DEFAULT_SYSTEM = "You are a helpful assistant."
SPAN_TAGS = (AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER)
_TAG = re.compile(r"<\|[^<>|\s]{1,64}\|>")


class PromptWarning(UserWarning):
    """Something in a prompt that is allowed but nearly always a mistake."""


@dataclass(frozen=True)
class Turn:
    """One question, the number of audio vectors of each clip that comes with it, and (for turns gone by) the answer."""

    query: str
    vectors: tuple[int, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Prompt:
    """Token ids [length], and how many of the oldest turns did not fit (their clips are not in the ids either)."""

    ids: tuple[int, ...]
    dropped_turns: int = 0


def base_prompt(tokenizer: Tokenizer, text: str, vectors: Sequence[int] = ()) -> Prompt:
    """Clips first, then the text, in which every special token is recognised."""
    _check_text(tokenizer, text, "prompt")
    spans = [id_ for n in vectors for id_ in audio_span(tokenizer, n)]
    return Prompt((*spans, *tokenizer.encode(text, allowed_special="all")))


def chat_prompt(tokenizer: Tokenizer, history: Sequence[Turn], turn: Turn, system: str = DEFAULT_SYSTEM, window: int = 6144) -> Prompt:
    """ChatML up to the point where the assistant's answer begins.

    Whole oldest turns are dropped once system, kept turns and the next older turn together reach `window` tokens. As in the
    original, the question itself does not count.
    """
    newline = tokenizer.encode("\n")
    head = _message(tokenizer, "system", system)
    kept: list[int] = []
    dropped = len(history)
    for old in reversed(history):
        older = [*newline, *_message(tokenizer, "user", old.query, old.vectors), *newline, *_answer(tokenizer, old.answer)]
        if len(head) + len(older) + len(kept) >= window:
            break
        kept = older + kept
        dropped -= 1
    question = newline + _message(tokenizer, "user", turn.query, turn.vectors)
    opening = [*newline, tokenizer.special_ids[IM_START], *tokenizer.encode("assistant"), *newline]
    return Prompt((*head, *kept, *question, *opening), dropped)


def audio_span(tokenizer: Tokenizer, vectors: int) -> list[int]:
    """The ids of one clip: `<audio>`, `vectors` placeholders, `</audio>`."""
    start, placeholder, end = (tokenizer.special_ids[name] for name in (AUDIO_START, AUDIO_PLACEHOLDER, AUDIO_END))
    return [start, *[placeholder] * vectors, end]


def find_spans(ids: Sequence[int], audio_start_id: int) -> list[tuple[int, int]]:
    """Where the clips stand: (position of `<audio>`, position after `</audio>`) for each, in order.

    Raises MismatchError where the two tags do not alternate.
    """
    spans: list[tuple[int, int]] = []
    begin: int | None = None
    for position, id_ in enumerate(ids):
        if id_ not in (audio_start_id, audio_start_id + 1):
            continue
        if (id_ == audio_start_id) != (begin is None):
            raise MismatchError(f"ids: unpaired audio tag {id_} at position {position}; every <audio> needs one </audio> after it")
        if begin is None:
            begin = position
        else:
            spans.append((begin, position + 1))
            begin = None
    if begin is not None:
        raise MismatchError(f"ids: <audio> at position {begin} has no </audio> after it")
    return spans


def _message(tokenizer: Tokenizer, role: str, text: str, vectors: Sequence[int] = ()) -> list[int]:
    """`<|im_start|>role NEWLINE text<|im_end|>`, with "Audio k:" lines for the clips before the text.

    Role, newline and text are encoded apart, as in the original: joined, their bytes could merge into other tokens.
    """
    _check_text(tokenizer, text, role)
    start, end = tokenizer.special_ids[IM_START], tokenizer.special_ids[IM_END]
    ids = [start, *tokenizer.encode(role), *tokenizer.encode("\n")]
    lead = ""  # the newline after a clip belongs to the text that follows it
    for k, n in enumerate(vectors, start=1):
        ids += tokenizer.encode(f"{lead}Audio {k}:") + audio_span(tokenizer, n)
        lead = "\n"
    return [*ids, *tokenizer.encode(lead + text, allowed_special=AUDIO_FAMILY & tokenizer.special_ids.keys()), end]


def _answer(tokenizer: Tokenizer, text: str) -> list[int]:
    """The model's own words of an earlier turn. Audio tags among them are plain text: no clip belongs to them, and nobody typed them."""
    start, end = tokenizer.special_ids[IM_START], tokenizer.special_ids[IM_END]
    allowed = (AUDIO_FAMILY - set(SPAN_TAGS)) & tokenizer.special_ids.keys()
    return [start, *tokenizer.encode("assistant"), *tokenizer.encode("\n"), *tokenizer.encode(text, allowed_special=allowed), end]


def _check_text(tokenizer: Tokenizer, text: str, where: str) -> None:
    """Audio tags in text are an error, unknown tags a warning."""
    for tag in SPAN_TAGS:
        if tag in text:
            raise UsageError(
                f"the {where} text contains {tag}; sound comes from --input (or the audio argument), paths in text are never opened"
            )
    for tag in sorted(set(_TAG.findall(text)) - tokenizer.special_ids.keys()):
        advice = f"{shown(tag)} in the {where} text is not a token of this model and is read as plain text; misspelt?"
        warnings.warn(advice, PromptWarning, stacklevel=4)
