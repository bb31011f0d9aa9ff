"""Learn a small byte-pair vocabulary from a text and write it in tiktoken's format.

It gives random checkpoints a vocabulary of their own. Of all pairs of neighbouring tokens the one that occurs most
often becomes the next token, until there are enough:

    "aaab aaab"  ->  pieces a a a b, _ a a a b  ->  pairs (a,a) 4, (a,b) 2, (_,a) 1  ->  first merge aa

Source: Sennrich et al. 2016, algorithm 1, on the bytes of the pieces that the tokenizer cuts.
"""

from __future__ import annotations

import base64
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from qwenaudio_np.bpe import split
from qwenaudio_np.errors import UsageError

Pair = tuple[bytes, bytes]


def learn_vocabulary(text: str, ranks: int) -> list[bytes]:
    """`ranks` tokens, the rank of each being its place: the bytes 0 to 255 in order, then the merges as learned.

    Of equally frequent pairs the one with the smaller bytes wins (left token first), so the result depends on nothing but
    the text, normalised to NFC, and `ranks`. Overlapping pairs all count: `aaa` holds (a, a) twice.
    Raises UsageError if `ranks` is below 256 or the text is too short for so many merges.
    """
    if ranks < 256:
        raise UsageError(f"a vocabulary of {ranks} ranks was asked for, expected at least 256, one for every byte")
    tokens = {bytes([value]): None for value in range(256)}  # keys only: a set that keeps its order
    words = _Words(unicodedata.normalize("NFC", text))
    while len(tokens) < ranks:
        pair = words.most_frequent()
        if pair is None:
            raise UsageError(f"the text gives only {len(tokens)} ranks, but {ranks} were asked for; use a longer text")
        tokens.setdefault(pair[0] + pair[1])  # not new after e.g. a + bc, when ab + c comes
        words.join(pair)
    return list(tokens)


def write_vocabulary(path: str | Path, tokens: Sequence[bytes]) -> None:
    """Write tokens as lines `base64 rank`, the rank being the place. Raises OSError as `open` does."""
    lines = (b"%b %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    Path(path).write_bytes(b"".join(lines))


class _Words:
    """The distinct pieces of a text as lists of tokens, with the count of every pair kept up to date.

    Counting anew after each merge gives the same and costs the whole text each time.
    """

    def __init__(self, text: str) -> None:
        pieces = Counter(split(text))
        self._words = [[bytes([value]) for value in piece.encode()] for piece in pieces]
        self._occurrences = list(pieces.values())  # of each word in the text
        self._count: Counter[Pair] = Counter()
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)  # words that hold, or once held, the pair
        for place in range(len(self._words)):
            self._add_pairs(place)

    def most_frequent(self) -> Pair | None:
        """The pair that occurs most often; None when every word is one token."""
        return min(self._count, key=lambda pair: (-self._count[pair], pair), default=None)

    def join(self, pair: Pair) -> None:
        """Make one token of every occurrence of the pair, from the left."""
        for place in self._places.pop(pair):
            self._remove_pairs(place)
            self._words[place] = _joined(self._words[place], pair)
            self._add_pairs(place)

    def _add_pairs(self, place: int) -> None:
        for pair in pairwise(self._words[place]):
            self._count[pair] += self._occurrences[place]
            self._places[pair].add(place)

    def _remove_pairs(self, place: int) -> None:
        for pair in pairwise(self._words[place]):
            self._count[pair] -= self._occurrences[place]
            if not self._count[pair]:
                del self._count[pair]


def _joined(word: list[bytes], pair: Pair) -> list[bytes]:
    result: list[bytes] = []
    place = 0
    while place < len(word):
        if tuple(word[place : place + 2]) == pair:
            result.append(pair[0] + pair[1])
            place += 2
        else:
            result.append(word[place])
            place += 1
    return result
