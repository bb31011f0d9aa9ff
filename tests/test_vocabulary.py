"""Vocabulary files: faults and their messages; learning a vocabulary from a text and writing it."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qwenaudio_np import vocabulary
from qwenaudio_np.convert.vocabulary import learn_vocabulary, write_vocabulary
from qwenaudio_np.errors import FormatError, UsageError
from qwenaudio_np.tokenizer import Tokenizer
from qwenaudio_np.vocabulary import read_ranks

TOKENS = [bytes([value]) for value in range(256)] + [b"ab", b"abc"]
LINES = [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(TOKENS)]  # line n holds rank n - 1


@pytest.fixture()
def read(tmp_path: Path) -> Callable[[bytes], dict[bytes, int]]:
    def write_and_read(data: bytes) -> dict[bytes, int]:
        path = tmp_path / "qwen.tiktoken"
        path.write_bytes(data)
        return read_ranks(path)

    return write_and_read


def changed(number: int, line: bytes | None) -> bytes:
    """The good file with one line (from 1) replaced or, for None, left out."""
    lines = [*LINES]
    lines[number - 1 : number] = [] if line is None else [line]
    return b"\n".join(lines) + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\n".join(LINES) + b"\n",
        b"\n".join(LINES),
        b"\r\n".join(LINES) + b"\r\n",
        b"\r\n".join(LINES),
        b"\n".join(reversed(LINES)) + b"\n",
    ],
    ids=["plain", "no final newline", "CRLF", "CRLF, no final newline", "other order"],
)
def test_good_files(read: Callable[[bytes], dict[bytes, int]], data: bytes) -> None:
    assert read(data) == {token: rank for rank, token in enumerate(TOKENS)}


FAULTS: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "is empty"),
    "only a newline": (b"\n", "line 1 is '', expected 'base64 rank'"),
    "blank line": (changed(9, b""), "line 9 is '', expected 'base64 rank'"),
    "second newline at the end": (b"\n".join(LINES) + b"\n\n", "line 259 is ''"),
    "no rank": (changed(9, b"CA=="), "line 9 is 'CA=='"),
    "no token": (changed(9, b" 8"), "line 9 is ' 8'"),
    "tab": (changed(9, b"CA==\t8"), r"line 9 is 'CA==\\t8'"),
    "two spaces": (changed(9, b"CA==  8"), "line 9 is"),
    "space at the end": (changed(9, b"CA== 8 "), "line 9 is"),
    "two carriage returns": (changed(9, b"CA== 8\r\r"), "line 9 is"),
    "a third field": (changed(9, b"CA== 8 8"), "line 9 is"),
    "letter outside base64": (changed(9, b"C*A== 8"), r"line 9 is 'C\*A== 8'"),
    "URL-safe base64": (changed(257, b"-_8= 256"), "line 257 is"),
    "no padding": (changed(9, b"CA 8"), "line 9 is"),
    "padding bits set": (changed(9, b"CB== 8"), "line 9 is"),
    "text after padding": (changed(9, b"CA==CA== 8"), "line 9 is"),
    "rank -1": (changed(9, b"CA== -1"), "line 9 is 'CA== -1', expected 'base64 rank' with a rank from 0"),
    "rank +8": (changed(9, b"CA== +8"), "line 9 is"),
    "rank 08": (changed(9, b"CA== 08"), "line 9 is"),
    "rank 8.0": (changed(9, b"CA== 8.0"), "line 9 is"),
    "rank 1_0": (changed(11, b"Cg== 1_0"), "line 11 is"),
    "rank in other digits": (changed(9, "CA== ٨".encode()), "line 9 is"),
    "rank 10^12": (changed(9, b"CA== 1000000000000"), "line 9 is 'CA== 1000000000000'"),
    "rank 10^8 - 1": (changed(9, b"CA== 99999999"), "has no rank 8 although line 9 has rank 99999999, expected 0 to 257"),
    "rank of 900 digits": (changed(9, b"CA== " + b"9" * 900), "line 9 is 'CA== 9999"),
    "rank of 5000 digits": (changed(9, b"CA== " + b"9" * 5000), "line 9 has 5005 bytes, expected at most 1024"),
    "long token": (changed(258, base64.b64encode(b"ab" * 1000) + b" 257"), "line 258 has 2672 bytes"),
    "gap": (changed(9, None), "has no rank 8 although line 257 has rank 257, expected 0 to 256"),
    "cut at the front": (b"\n".join(LINES[5:]), "has no rank 0"),
    "cut within a line": (b"\n".join(LINES)[:-6], "line 258 is"),
    "repeated rank": (changed(9, b"CA== 7"), "line 9 repeats rank 7 of line 8"),
    "repeated token": (changed(9, b"Bw== 8"), "line 9 repeats the token of line 8"),
    "byte missing": (changed(9, base64.b64encode(b"bc") + b" 8"), "has no token for the byte 0x08, expected all 256 in its 258 lines"),
    "byte order mark": (b"\xef\xbb\xbf" + b"\n".join(LINES), "line 1 starts with a byte order mark"),
    "UTF-16": (b"\n".join(LINES).decode().encode("utf-16"), "line 1 is"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2561218\n", "is a git-lfs pointer"),
    "HTML": (b"<!DOCTYPE html><html></html>", "is an HTML page"),
    "JSON": (b'{"!": 0, "\\"": 1}', "line 1 is"),
    "binary": (bytes(range(256)) * 8, "line 1 is"),
    "escape sequences": (b"\x1b[31mred\x1b[0m", r"line 1 is '\\x1b\[31mred"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_in_one_line(read: Callable[[bytes], dict[bytes, int]], fault: str) -> None:
    data, message = FAULTS[fault]
    with pytest.raises(FormatError) as caught:
        read(data)
    text = str(caught.value)
    assert re.search(message, text), text
    assert "qwen.tiktoken" in text
    assert text.isprintable() and len(text) < 400


def test_a_file_of_more_than_16_mib_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "qwen.tiktoken"
    with path.open("wb") as stream:
        stream.truncate(vocabulary.MAX_VOCABULARY_BYTES + 1)  # sparse
    with pytest.raises(FormatError, match=r"has 16777217 bytes, expected at most 16777216"):
        read_ranks(path)


def test_things_that_are_no_files_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        read_ranks(tmp_path / "absent")
    with pytest.raises(FormatError, match="is a directory"):
        read_ranks(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FormatError, match="not a regular file"):
            read_ranks(tmp_path / "pipe")


def test_the_published_number_of_lines_loads_quickly(tmp_path: Path) -> None:
    """About 0.2 s for 151,643 lines."""
    tokens = TOKENS[:256] + [b"%06d" % number for number in range(151_643 - 256)]
    write_vocabulary(tmp_path / "v", tokens)
    start = time.process_time()
    assert Tokenizer.from_file(tmp_path / "v").n_ranks == 151_643
    assert time.process_time() - start < 3


def test_learning_letter_by_letter() -> None:
    """The text "aaab aaab" has the pieces `aaab` and ` aaab`, each once.

    a a a b, _ a a a b    (a,a) 4, (a,b) 2, (_,a) 1     -> aa is rank 256
    aa a b,  _ aa a b     (aa,a) 2, (a,b) 2, (_,aa) 1   -> a tie; left tokens are compared first, a < aa: ab is 257
    aa ab,   _ aa ab      (aa,ab) 2, (_,aa) 1           -> aaab is 258
    aaab,    _ aaab       (_,aaab) 1                    -> _aaab is 259, and nothing is left to join
    """
    learned = learn_vocabulary("aaab aaab", 260)
    assert learned[:256] == [bytes([value]) for value in range(256)]
    assert learned[256:] == [b"aa", b"ab", b"aaab", b" aaab"]
    with pytest.raises(UsageError, match="the text gives only 260 ranks, but 261 were asked for"):
        learn_vocabulary("aaab aaab", 261)


def test_at_least_every_byte_must_fit() -> None:
    assert learn_vocabulary("", 256) == [bytes([value]) for value in range(256)]
    with pytest.raises(UsageError, match="255 ranks was asked for, expected at least 256"):
        learn_vocabulary("", 255)


def test_no_token_crosses_a_piece() -> None:
    """Words start with their space and every digit is alone, so here only ` x` and ` y` can be joined."""
    assert learn_vocabulary("x y x y x y 11 11", 258)[256:] == [b" y", b" x"]
    with pytest.raises(UsageError, match="gives only 258 ranks"):
        learn_vocabulary("x y x y x y 11 11", 259)


SAMPLE = (Path(__file__).resolve().parent.parent / "LICENSE").read_text("utf-8")


def naive_learning(text: str, ranks: int) -> list[bytes]:
    """Count everything anew for each merge, in ASCII text of which the pieces are given by their spaces."""
    words = [[bytes([value]) for value in word] for word in re.findall(rb" ?[a-z]+", text.encode())]
    tokens = [bytes([value]) for value in range(256)]
    while len(tokens) < ranks:
        count: dict[tuple[bytes, bytes], int] = {}
        for word in words:
            for i in range(len(word) - 1):
                count[word[i], word[i + 1]] = count.get((word[i], word[i + 1]), 0) + 1
        best = sorted(count, key=lambda pair: (-count[pair], pair[0], pair[1]))[0]
        if best[0] + best[1] not in tokens:
            tokens.append(best[0] + best[1])
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [best[0] + best[1]]
                i += 1
    return tokens


def test_learning_against_the_slow_twin() -> None:
    text = " ".join(re.findall("[a-z]+", SAMPLE.lower()))[:4000]
    assert learn_vocabulary(text, 400) == naive_learning(text, 400)


def test_a_learned_vocabulary_encodes_its_text_and_any_other(tmp_path: Path) -> None:
    start = time.process_time()
    tokens = learn_vocabulary(SAMPLE * 5, 600)  # 57 kB
    assert time.process_time() - start < 5
    write_vocabulary(tmp_path / "qwen.tiktoken", tokens)
    tokenizer = Tokenizer.from_file(tmp_path / "qwen.tiktoken")
    assert tokenizer.n_ranks == 600
    assert [tokenizer.token_bytes(rank) for rank in range(600)] == tokens
    for text in (SAMPLE, "schön 你好 \U0001f600\x00"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(SAMPLE)) < 0.55 * len(SAMPLE)


def test_a_written_line_is_base64_and_rank(tmp_path: Path) -> None:
    """`!` is the byte 21; the first line of the published file is the same."""
    write_vocabulary(tmp_path / "v", [b"!", b"ab", "你".encode()])
    assert (tmp_path / "v").read_bytes() == b"IQ== 0\nYWI= 1\n5L2g 2\n"
