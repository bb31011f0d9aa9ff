"""The tokenizer against tiktoken, on the full vocabulary and two small ones, and the decoding of streams."""

from __future__ import annotations

import base64
import importlib.util
import random
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.errors import UsageError
from qwenaudio_np.special_tokens import AUDIO_FAMILY, SPECIAL_TOKENS, TEXT_TOKENS
from qwenaudio_np.tokenizer import StreamDecoder, Tokenizer

# The pattern of the original's tokenization_qwen.py.
ORIGINAL = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
GOLDEN = Path(__file__).parent / "golden"
STRINGS = {"full": 3000, "tiny": 1000, "short_context_bf16": 1000}  # how many random ones for each vocabulary


def vocabulary_file(name: str) -> Path:
    if name != "full":
        path = GOLDEN / name / "checkpoint" / "qwen.tiktoken"
        return path if path.exists() else pytest.skip(f"reference data missing: {path}")
    found = importlib.util.find_spec("dashscope")  # only looked up: importing it would need the network's packages
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package dashscope (extra `test`), which carries the full vocabulary, is not installed")
    return Path(found.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"


@pytest.fixture(scope="module", params=list(STRINGS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tokenizer(name: str) -> Tokenizer:
    return Tokenizer.from_file(vocabulary_file(name))


@pytest.fixture(scope="module")
def truth(name: str) -> Any:
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken (extra `test`) is the truth here")
    lines = vocabulary_file(name).read_bytes().split()
    ranks = {base64.b64decode(word): int(rank) for word, rank in zip(lines[::2], lines[1::2], strict=True)}
    special = {token: len(ranks) + place for place, token in enumerate(SPECIAL_TOKENS)}
    return tiktoken.Encoding(name, pat_str=ORIGINAL, mergeable_ranks=ranks, special_tokens=special)


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return Tokenizer.from_file(vocabulary_file("tiny"))


def expected_ids(truth: Any, text: str, allowed: Any = frozenset()) -> list[int]:
    """What the original does: NFC, then tiktoken with nothing disallowed."""
    return truth.encode(unicodedata.normalize("NFC", text), allowed_special=allowed, disallowed_special=())


ALPHABETS = [
    (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x4FF), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF),
    (0x2000, 0x206F), (0x2150, 0x218F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xD800, 0xDFFF), (0xFE00, 0xFE0F),
    (0x1F1E6, 0x1F1FF), (0x1F300, 0x1FAFF), (0x1D400, 0x1D7FF), (0xE0000, 0xE007F), (0, 0x10FFFF),
]  # fmt: skip
SPACES = [*" \n\r\t\x0b\x0c\x1c\x1f\x85\xa0\u1680\u180e\u2003\u2028\u200b\u3000\ufeff", "  ", "   ", "\r\n", "\n\n", " \n "]
WORDS = [
    "'s", "'S", "'\u017f", "'RE", "'vE", "'ll", "'", "''", "’s", "don't", "hello", "Hello WORLD", "straße", "ﬁ", "e\u0301", "\u1100\u1161",
    "1234", "٣٤", "½", "Ⅷ", "x²", "👩‍👩‍👧", "🇩🇪🇫🇷", "👍🏽", "\ud83d\ude00", "\ud83d", "\ude00", "नमस्ते", "สวัสดี", "العربية", "...", "!?",
    "--", "<|", "|>", "<|x|>", "<audio", "[[[AUDIO:", "<|<|im_end|>", "<|im_end|>\u0338", "[[[", "$%", "_",
]  # fmt: skip


def random_text(rng: random.Random) -> str:
    def part() -> str:
        kind = rng.randrange(5)
        if kind < 2:
            first, last = rng.choice(ALPHABETS)
            return "".join(chr(rng.randint(first, last)) for _ in range(rng.randrange(1, 8)))
        return rng.choice((SPACES, WORDS, SPECIAL_TOKENS)[kind - 2])

    return "".join(part() for _ in range(rng.randrange(1, 12)))


def test_random_text_encodes_and_decodes_as_tiktoken_does(name: str, tokenizer: Tokenizer, truth: Any) -> None:
    rng = random.Random(20231114)
    for _ in range(STRINGS[name]):
        text = random_text(rng)
        ids = tokenizer.encode(text)
        assert ids == expected_ids(truth, text), ascii(text)
        assert tokenizer.decode(ids) == truth.decode(ids)


def test_special_tokens_in_random_text_are_tiktokens(name: str, tokenizer: Tokenizer, truth: Any) -> None:
    rng = random.Random(20240131)
    for _ in range(STRINGS[name] // 5):
        text = random_text(rng)
        for allowed in (AUDIO_FAMILY, "all", set(rng.sample(SPECIAL_TOKENS, 1000))):
            assert tokenizer.encode(text, allowed_special=allowed) == expected_ids(truth, text, allowed), ascii(text)


def test_random_ids_decode_as_tiktoken_does(tokenizer: Tokenizer, truth: Any) -> None:
    """Not what an encoder would make: broken characters, special tokens in between."""
    rng = random.Random(3)
    for _ in range(300):
        ids = [rng.randrange(tokenizer.n_vocab) if rng.random() < 0.5 else rng.randrange(256) for _ in range(20)]
        assert tokenizer.decode(ids) == truth.decode(ids)
        assert tokenizer.decode_bytes(ids) == truth.decode_bytes(ids)


def test_a_hand_worked_text(tiny: Tokenizer) -> None:
    """The pieces are `the` and ` cat`; the first 1000 ranks have th 339, he 383, at 266, " c" 272, ca 924, but no `the`.

    t h e      th goes before he              -> th e
    _ c a t    at goes before " c" and ca     -> _ c at  ->  _c at
    """
    ids = tiny.encode("the cat")
    assert [tiny.token_bytes(i) for i in ids] == [b"th", b"e", b" c", b"at"]
    assert ids == [339, 68, 272, 266]
    assert tiny.decode(ids) == "the cat"


def test_special_tokens_are_text_unless_allowed(tiny: Tokenizer) -> None:
    """1000 ranks, so <|endoftext|> is 1000, <|im_end|> 1002 and <audio> 1000 + 3520."""
    assert (tiny.n_ranks, tiny.n_vocab) == (1000, 4522)
    assert tiny.id_of("<|endoftext|>") == 1000
    assert tiny.id_of("<audio>") == tiny.special_ids["<audio>"] == 4520
    assert tiny.encode("<|im_end|>", allowed_special={"<|im_end|>"}) == [1002]
    assert tiny.encode("<|im_end|>", allowed_special="all") == [1002]
    assert max(tiny.encode("<|im_end|><audio>")) < 1000
    typed = tiny.encode("<|im_end|><|en|>", allowed_special=AUDIO_FAMILY)
    assert typed == [*tiny.encode("<|im_end|>"), tiny.id_of("<|en|>")]
    assert tiny.decode([1002, 4520]) == "<|im_end|><audio>"


def test_text_is_normalised_to_nfc_before_tags_are_looked_for(tiny: Tokenizer) -> None:
    assert tiny.encode("e\u0301") == tiny.encode("\xe9")
    # `>` and the combining stroke after it are one character in NFC, so there is no tag left.
    assert tiny.id_of("<|im_end|>") not in tiny.encode("<|im_end|>\u0338", allowed_special="all")


def test_halves_of_surrogate_pairs_are_joined_or_replaced(tiny: Tokenizer) -> None:
    assert tiny.encode("\ud83d\ude00") == tiny.encode("\U0001f600")
    assert tiny.encode("a\ud83db") == tiny.encode("a\ufffdb")


def test_a_text_only_vocabulary_has_no_audio_tokens() -> None:
    text_only = Tokenizer.from_file(vocabulary_file("tiny"), special_tokens=TEXT_TOKENS)
    assert text_only.n_vocab == 1000 + 208
    assert text_only.encode("<|im_end|>", allowed_special="all") == [1002]
    assert max(text_only.encode("<audio>", allowed_special="all")) < 1000
    with pytest.raises(UsageError, match=r"'<audio>' is not a special token"):
        text_only.id_of("<audio>")


@pytest.mark.parametrize("allowed", [{"<|nonsense|>"}, {"<|en|>", "en"}])
def test_an_unknown_special_token_cannot_be_allowed(tiny: Tokenizer, allowed: set[str]) -> None:
    with pytest.raises(UsageError, match="is not a special token of this vocabulary"):
        tiny.encode("text", allowed_special=allowed)


def test_a_string_is_no_set_of_special_tokens(tiny: Tokenizer) -> None:
    with pytest.raises(UsageError, match="expected a set of special tokens or 'all'"):
        tiny.encode("text", allowed_special="<|en|>")


@pytest.mark.parametrize("wrong", [-1, 4522, 10**9])
def test_ids_outside_the_table_are_refused(tiny: Tokenizer, wrong: int) -> None:
    for decode in (tiny.decode, tiny.decode_bytes):
        with pytest.raises(UsageError, match=f"token id {wrong} is not in the vocabulary, expected 0 to 4521"):
            decode([0, wrong])


def test_ids_may_be_numpy_integers(tiny: Tokenizer) -> None:
    assert tiny.decode(np.array(tiny.encode("hello"), np.int32)) == "hello"


@pytest.mark.parametrize("unit", ["a", " ", "word and word ", "<|", "<audio", "\u4f60\u597d"])
def test_a_hundred_kilobytes_take_about_a_second_at_most(tokenizer: Tokenizer, unit: str) -> None:
    """Measured: below 0.5 s. The limit is generous for a busy machine; anything quadratic passes it by far."""
    text = unit * (100_000 // len(unit.encode()))
    start = time.process_time()
    ids = tokenizer.encode(text, allowed_special=AUDIO_FAMILY)
    assert time.process_time() - start < 5
    assert tokenizer.decode(ids) == text


def test_half_a_character_waits_for_the_rest(tiny: Tokenizer) -> None:
    """U+1F600 is F0 9F 98 80 in UTF-8; as single bytes nothing may appear before the fourth."""
    stream = StreamDecoder(tiny)
    single = {tiny.token_bytes(i): i for i in range(tiny.n_ranks)}
    assert [stream.push(single[bytes([value])]) for value in b"a\xf0\x9f\x98\x80b"] == ["a", "", "", "", "\U0001f600", "b"]
    assert stream.flush() == ""


def test_a_character_that_never_comes_is_replaced(tiny: Tokenizer) -> None:
    single = {tiny.token_bytes(i): i for i in range(tiny.n_ranks)}
    stream = StreamDecoder(tiny)
    assert [stream.push(single[b"\xf0"]), stream.push(single[b"\x9f"]), stream.flush()] == ["", "", "\ufffd"]
    assert [stream.push(single[b"\xf0"]), stream.push(single[b"x"]), stream.flush()] == ["", "\ufffdx", ""]
    assert [stream.push(single[b"\xf0"]), stream.push(tiny.id_of("<|im_end|>"))] == ["", "\ufffd<|im_end|>"]


def test_padding_rows_of_the_model_are_visible_in_a_stream(tiny: Tokenizer) -> None:
    stream = StreamDecoder(tiny)
    assert stream.push(4521) == "</audio>"
    assert stream.push(4522) == "<|unused_4522|>"
    with pytest.raises(UsageError, match="token id -1"):
        stream.push(-1)


def test_a_stream_gives_what_decoding_at_once_gives(tokenizer: Tokenizer) -> None:
    rng = random.Random(11)
    for round_ in range(400):
        if round_ % 2:
            ids = tokenizer.encode(random_text(rng), allowed_special="all")
        else:
            ids = [rng.randrange(tokenizer.n_vocab) if rng.random() < 0.3 else rng.randrange(256) for _ in range(30)]
        stream = StreamDecoder(tokenizer)
        parts = [stream.push(i) for i in ids]
        assert "".join(parts) + stream.flush() == tokenizer.decode(ids)
