"""Cutting text into pieces and merging their bytes: by example, against a slow twin, against tiktoken."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from qwenaudio_np import bpe

BYTES = {bytes([value]): value for value in range(256)}
# The pattern of the original's tokenization_qwen.py.
ORIGINAL = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def with_merges(*tokens: str) -> dict[bytes, int]:
    return BYTES | {token.encode(): 256 + place for place, token in enumerate(tokens)}


def spelled(ids: list[int], ranks: dict[bytes, int]) -> list[str]:
    name = {rank: token for token, rank in ranks.items()}
    return [name[i].decode() for i in ids]


def test_a_merge_letter_by_letter() -> None:
    """Ranks: er first, then lo, then low, then we.

    l o w e r    pairs: lo (2nd), we (4th), er (1st)   -> er is joined
    l o w er     pairs: lo (2nd); wer is not a token   -> lo is joined
    lo w er      pairs: low (3rd)                      -> low is joined
    low er       lower is not a token                  -> done; we never came to its turn
    """
    ranks = with_merges("er", "lo", "low", "we")
    assert spelled(bpe.merge(b"lower", ranks), ranks) == ["low", "er"]
    assert bpe.merge(b"lower", ranks) == [258, 256]


def test_the_leftmost_of_equal_pairs_comes_first() -> None:
    """a a a a a: the pair at 0, then the pair at 2, and the last letter is left over."""
    ranks = with_merges("aa")
    assert spelled(bpe.merge(b"aaaaa", ranks), ranks) == ["aa", "aa", "a"]


def test_rank_goes_before_length_and_place() -> None:
    """a b c with bc before ab and abc: a bc, then abc needs the pair (a, bc), whose bytes are a token too."""
    ranks = with_merges("bc", "ab")
    assert spelled(bpe.merge(b"abc", ranks), ranks) == ["a", "bc"]
    ranks = with_merges("bc", "ab", "abcd", "abc")
    assert spelled(bpe.merge(b"abcx", ranks), ranks) == ["abc", "x"]


def test_a_piece_that_is_a_token_is_taken_whole_even_if_no_merge_leads_there() -> None:
    ranks = with_merges("xyz")
    assert bpe.merge(b"xyz", ranks) == [256]
    assert spelled(bpe.merge(b"xyz!", ranks), ranks) == ["x", "y", "z", "!"]


def test_no_bytes_no_tokens() -> None:
    assert bpe.merge(b"", BYTES) == []
    assert bpe.split("") == []


def naive_merge(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """The definition: search all pairs anew after every merge."""
    if piece in ranks:
        return [ranks[piece]]
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        pairs = [(ranks[parts[i] + parts[i + 1]], i) for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in ranks]
        if not pairs:
            return [ranks[part] for part in parts]
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def test_against_the_slow_twin_on_random_vocabularies() -> None:
    """Few letters and many random tokens: pairs overlap, repeat and lead nowhere as often as can be."""
    rng = random.Random(7)

    def word(most: int) -> str:
        return "".join(rng.choice("abc") for _ in range(rng.randint(2, most)))

    for _ in range(300):
        ranks = with_merges(*dict.fromkeys(word(rng.randint(2, 6)) for _ in range(rng.randint(1, 40))))
        for _ in range(10):
            piece = word(40).encode()
            assert bpe.merge(piece, ranks) == naive_merge(piece, ranks), (piece, ranks)


@pytest.mark.parametrize("piece", [b"a" * 100_000, b" " * 100_000, b"ab" * 50_000])
def test_a_hundred_thousand_letters_are_one_piece_and_take_no_minutes(piece: bytes) -> None:
    """About 0.4 s; a search of all pairs after every merge would need 10^9 steps or more."""
    ranks = with_merges("aa", "aaaa", "  ", "    ", "ab", "abab")
    assert bpe.split(piece.decode()) == [piece.decode()]
    start = time.process_time()
    ids = bpe.merge(piece, ranks)
    assert time.process_time() - start < 5
    assert ids == [ids[0]] * 25_000


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It's 3 am", ["It", "'s", " ", "3", " am"]),
        ("1234", ["1", "2", "3", "4"]),  # every digit is a piece of its own
        ("WE'LL DON'T we'Re", ["WE", "'LL", " DON", "'T", " we", "'Re"]),
        ("x'\u017f", ["x", "'\u017f"]),  # the long s folds to s
        ("'sa", ["'s", "a"]),  # the contraction is tried before the word
        ("a  b", ["a", " ", " b"]),  # the last space goes to the word
        ("a  1", ["a", " ", " ", "1"]),  # ... but not to a number
        ("a  ", ["a", "  "]),
        ("a \n\n b", ["a", " \n\n", " b"]),
        ("so!?\r\n\r\nyes", ["so", "!?\r\n\r\n", "yes"]),
        ("\tword", ["\tword"]),
        ("\nword", ["\n", "word"]),
        ("\x1cx\u200b\u180e", ["\x1cx", "\u200b\u180e"]),  # no white space, whatever Python's str.isspace says of the first
        ("a\x85 \xa0b", ["a", "\x85 ", "\xa0b"]),  # white space outside ASCII
        ("你好，世界", ["你好", "，世界"]),
    ],
)
def test_pieces(text: str, pieces: list[str]) -> None:
    assert bpe.split(text) == pieces


def characters(*ranges: tuple[int, int]) -> Iterator[str]:
    return (chr(code) for first, last in ranges for code in range(first, last + 1) if not 0xD800 <= code <= 0xDFFF)


@pytest.mark.parametrize(
    "context",
    ["{}", " {}", "a{}b", "'{}", "'{}e", "'r{}", "1{}'S", ".{}.", "\n{}\n|", "  {}  {}a", "{}\r\n{}"],
)
def test_text_around_a_character_is_cut_as_tiktoken_cuts_it(context: str) -> None:
    """For the alphabets of the first 12,544 characters and the edges of the ranges that we cut from the classes.

    All pairs of bytes are tokens here, so a border that moves by one byte changes the ids on both sides of it.
    """
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken (extra `test`) is the truth here")
    ranks = BYTES | {bytes([first, second]): 256 + 256 * first + second for first in range(256) for second in range(256)}
    truth = tiktoken.Encoding("pairs", pat_str=ORIGINAL, mergeable_ranks=ranks, special_tokens={})
    cut = bpe._LATER_THAN_UNICODE_16
    edges = [(max(ord(edge) - 1, 0), min(ord(edge) + 1, 0x10FFFF)) for edge in cut[0::3] + cut[2::3]]
    text = "\n\n|".join(context.replace("{}", character) for character in characters((0, 0x30FF), *edges))
    pieces = bpe.split(text)
    assert "".join(pieces) == text
    assert [i for piece in pieces for i in bpe.merge(piece.encode(), ranks)] == truth.encode_ordinary(text)


@pytest.mark.parametrize(("ours", "original"), [(bpe._LETTER, r"\p{L}"), (bpe._NUMBER, r"\p{N}"), (r"\s", r"\s"), ("(?i:s)", "(?i:s)")])
def test_character_classes_are_those_of_tiktoken(ours: str, original: str) -> None:
    """On all of Unicode. tiktoken drops what its pattern does not match, so what is left of all of Unicode is the class itself."""
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken (extra `test`) is the truth here")
    regex = pytest.importorskip("regex")
    truth = tiktoken.Encoding("class", pat_str=original, mergeable_ranks=BYTES, special_tokens={})
    everything = "".join(characters((0, 0x10FFFF)))
    expected = set(truth.decode(truth.encode_ordinary(everything)))
    assert set(regex.findall("(?V1)" + ours, everything)) == expected
