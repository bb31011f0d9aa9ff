"""Where in the clip each token of an answer is heard: what the listening head is shown (losses.py, listening_loss)."""

from __future__ import annotations

import math
import re

import numpy as np

from demo.examples import GRID, transcript_answer
from qwenaudio_np.tokenizer import Tokenizer

NOWHERE = (-1, -1)
SPECIAL = b"<|"  # how the tokens begin that are not letters
TIME = re.compile(rb"<\|(\d+\.\d\d)\|>")
# The answer to a second turn, its times left out; first what is said of the word, then the word.
WHEN = re.compile(rb'The word "((.*)" starts at  seconds and ends at ) seconds\.')
ROUNDING = 1e-6  # of a time on the grid, divided by it
WordTimes = list[tuple[str, float, float]]


def heard_at(ids: list[int], words: WordTimes | None, vectors: int, tokenizer: Tokenizer) -> np.ndarray:
    """[tokens, 2]: the first and last audio vector of each token's word or time, NOWHERE for what is not heard.

    A token belongs to the word in which it ends. One vector more on each side is right too: times are not exact. Where a chat says when
    a word was said, what stands between the word and its end belongs to it too, the start as well: there the word is known, and its place
    is sought by what it is, which is heard in its middle and not where it starts.
    """
    pieces = [tokenizer.token_bytes(id_) for id_ in ids]
    letters = b"".join(piece for piece in pieces if not piece.startswith(SPECIAL))
    spans, word_of = word_places(letters, words or [])
    found, now, sought = [], 0, WHEN.fullmatch(letters) is not None
    for piece in pieces:
        special, time = piece.startswith(SPECIAL), TIME.fullmatch(piece)
        now += 0 if special else len(piece)
        place = spans[word_of[now - 1]] if now - 1 in word_of else NOWHERE
        if time and (not sought or place == NOWHERE):
            place = around(float(time[1]))
        elif special and not time:
            place = NOWHERE
        found.append(place)
        sought = sought and not time
    frames = np.array(found, np.int64).reshape(-1, 2)
    return np.where(frames[:, 1:] < 0, -1, frames.clip(0, vectors - 1))


def around(seconds: float) -> tuple[int, int]:
    """The two vectors on each side of a time."""
    nearest = round(seconds / GRID)
    return nearest - 2, nearest + 1


def word_places(letters: bytes, words: WordTimes) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """Each word's first and last vector, and which word each byte of the answer belongs to; no byte where it is no transcript of them."""
    spans = [(math.floor(start / GRID + ROUNDING) - 1, math.ceil(end / GRID - ROUNDING)) for _, start, end in words]
    text = " ".join(word for word, _, _ in words)
    chat = transcript_answer(text)
    # A transcript, one in a chat, words with times between them. Looking for the words in any answer would find an "a" in "says".
    for answer, now, between in ((text, 0, " "), (chat, chat.index(f'"{text}"') + 1, " "), (text.replace(" ", ""), 0, "")):
        if words and letters == answer.encode():
            word_of = {}
            for number, (word, _, _) in enumerate(words):
                word_of |= dict.fromkeys(range(now, now + len(word.encode())), number)
                now += len((word + between).encode())
            return spans, word_of
    asked = WHEN.fullmatch(letters)
    numbers = [number for number, (word, _, _) in enumerate(words) if asked and word.encode() == asked[2]]
    return spans, dict.fromkeys(range(*asked.span(1)), numbers[0]) if asked and len(numbers) == 1 else {}
