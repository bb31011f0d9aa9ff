"""From text to pieces and from a piece to tokens: byte-pair encoding, without files and special tokens.

A piece starts as single bytes. Of all neighbours whose concatenation is in the vocabulary, those with the lowest rank are
joined, the leftmost first, until no such neighbours are left:

    ranks   l o w e r = 0 1 2 3 4, er = 5, lo = 6, low = 7
    l o w e r  ->  l o w er  ->  lo w er  ->  low er        ids 7 5
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import regex

_NO_PAIR = -1

# What is a letter or a number changes with every edition of Unicode. The reference, tiktoken 0.14, knows Unicode 16; newer
# releases of `regex` know more (2026.11.15: 17,480 code points), older ones less (2024.9.11 has Unicode 16 exactly).
# In these ranges Unicode 16 has no letter and no number, so what a later edition puts there is left out again.
_LATER_THAN_UNICODE_16 = "".join(
    f"{chr(first)}-{chr(last)}"
    for first, last in [
        (0x0557, 0x0558), (0x0589, 0x05CF), (0x088F, 0x089F), (0x0C5B, 0x0C5C), (0x0CBE, 0x0CDC), (0x208A, 0x208F),
        (0x209D, 0x2101), (0xA7CE, 0xA7CF), (0xA7D2, 0xA7D2), (0xA7D4, 0xA7D4), (0xA7DD, 0xA7F1), (0xAB6A, 0xAB6F),
        (0x107BB, 0x107FF), (0x1093A, 0x1097F), (0x10EC5, 0x10EFF), (0x11AF9, 0x11BBF), (0x11DAA, 0x11EDF),
        (0x1246F, 0x1247F), (0x12544, 0x12F8F), (0x16E97, 0x16EFF), (0x16FE4, 0x16FFF), (0x187F8, 0x187FF),
        (0x18CD6, 0x18CFE), (0x18D09, 0x1AFEF), (0x1B123, 0x1B131), (0x1B168, 0x1B16F), (0x1D6A6, 0x1D6A7),
        (0x1DF1F, 0x1DF24), (0x1DF2B, 0x1E02F), (0x1E5FB, 0x1E7DF), (0x2B73A, 0x2B73F), (0x2B81E, 0x2B81F),
        (0x2CEA2, 0x2CEAF), (0x323B0, 0x10FFFF),
    ]
)  # fmt: skip
_LETTER = rf"[\p{{L}}--[{_LATER_THAN_UNICODE_16}]]"
_NUMBER = rf"[\p{{N}}--[{_LATER_THAN_UNICODE_16}]]"

# The pattern of tokenization_qwen.py with these two classes for \p{L} and \p{N}. V1 allows `--`; it also folds case in
# full, which changes nothing here: (?i:'s) takes U+017F, the long s, under both rules, and nothing folds to `'`.
# \s is the property White_Space in both engines: it holds U+0085 and U+00A0 but not U+001C..1F, U+180E and U+200B, unlike
# the \s of Python's own `re`.
_PIECE = regex.compile(
    r"(?V1)(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    rf"|[^\r\n{_LETTER}{_NUMBER}]?{_LETTER}+"
    rf"|{_NUMBER}"
    rf"| ?[^\s{_LETTER}{_NUMBER}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)


def split(text: str) -> list[str]:
    """Cut text into the pieces that are encoded one by one; no token crosses their borders.

    `split("It's 3 am")` is `["It", "'s", " ", "3", " am"]`. Joined, the pieces are the text again.
    """
    return _PIECE.findall(text)


def merge(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Ids of the tokens of one piece; `ranks` must hold every single byte.

    A heap of candidate pairs makes it O(n log n): a piece can be 100,000 equal letters, for which searching the
    lowest pair anew after every merge, O(n^2), takes minutes.
    """
    if piece in ranks:  # a whole token need not be reachable by merges, yet it is taken, as tiktoken does
        return [ranks[piece]]
    return [ranks[piece[start:end]] for start, end in _spans(piece, ranks)]


def _spans(piece: bytes, ranks: Mapping[bytes, int]) -> list[tuple[int, int]]:
    """Where the tokens of a piece start and end, after all merges.

    A token is known by its first position. `following[i]` is the position after the token at i, which is where the next
    one starts; `pair_rank[i]` the rank of that token joined with the next. A heap entry whose rank is no longer
    `pair_rank` of its position is out of date: the pair at a position only ever grows, so its old rank cannot return.
    """
    size = len(piece)
    following = list(range(1, size + 2))
    previous = list(range(-1, size))
    pair_rank = [ranks.get(piece[i : i + 2], _NO_PAIR) for i in range(size - 1)] + [_NO_PAIR]
    heap = [(rank, i) for i, rank in enumerate(pair_rank) if rank != _NO_PAIR]
    heapq.heapify(heap)  # by rank, then by position: the leftmost of equal pairs comes first

    while heap:
        rank, left = heapq.heappop(heap)
        if pair_rank[left] != rank:
            continue
        right = following[left]
        end = following[right]
        following[left] = end
        previous[end] = left
        pair_rank[right] = _NO_PAIR  # no token starts there any more
        before = previous[left]
        for first in (before, left) if before >= 0 else (left,):  # the two pairs that the new token is part of
            second = following[first]
            joined = ranks.get(piece[first : following[second]], _NO_PAIR) if second < size else _NO_PAIR
            pair_rank[first] = joined
            if joined != _NO_PAIR:
                heapq.heappush(heap, (joined, first))

    spans = []
    start = 0
    while start < size:
        spans.append((start, following[start]))
        start = following[start]
    return spans
