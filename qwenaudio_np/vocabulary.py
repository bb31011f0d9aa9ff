"""Reading `qwen.tiktoken`: one line per token, `base64 rank`, nothing else.

Every line is checked, because a vocabulary with a fault still encodes text: only the model's answers are wrong.
Two ranks exchanged cannot be seen from the file itself; its sha256 tells.
"""

from __future__ import annotations

import binascii
from pathlib import Path

from qwenaudio_np.errors import FormatError, shown
from qwenaudio_np.files import read_bytes

VOCABULARY_FILE = "qwen.tiktoken"  # its name in a checkpoint folder
MAX_VOCABULARY_BYTES = 16 << 20
MAX_LINE_BYTES = 1024  # the longest published line has 178
MAX_RANK_DIGITS = 8  # more lines than that do not fit in the file

_ADVICE = "fetch the file again"


def read_ranks(path: str | Path) -> dict[bytes, int]:
    """The ordinary tokens of a vocabulary file in tiktoken's format, in any order: bytes -> rank.

    The ranks are 0 .. n-1, each once, and all 256 single bytes are among the tokens. Lines may end in CRLF, the last
    one in nothing. Raises FormatError, naming the file and the line, for anything else.
    """
    ranks: dict[bytes, int] = {}
    line_of: dict[int, int] = {}  # rank -> line, to find the second use of a rank
    lines = read_bytes(path, MAX_VOCABULARY_BYTES).split(b"\n")
    if lines[-1] == b"":  # what follows the last newline
        lines.pop()
    for number, line in enumerate(lines, 1):
        parsed = _parse(line.removesuffix(b"\r")) if len(line) <= MAX_LINE_BYTES else None
        if parsed is None:
            raise FormatError(_bad_line(path, number, line))
        token, rank = parsed
        first = line_of.setdefault(rank, number)
        if first != number:
            raise FormatError(f"{shown(path)} line {number} repeats rank {rank} of line {first}; {_ADVICE}")
        if ranks.setdefault(token, rank) != rank:
            raise FormatError(f"{shown(path)} line {number} repeats the token of line {line_of[ranks[token]]}; {_ADVICE}")
    _refuse_gaps(path, ranks, line_of)
    return ranks


def _parse(line: bytes) -> tuple[bytes, int] | None:
    """(token, rank) of a line, or None unless writing them anew gives the very same line.

    The decoders alone are lenient: `a2b_base64` drops foreign letters, `int` takes signs, blanks and `1_0`.
    """
    word, _, digits = line.partition(b" ")
    if len(digits) > MAX_RANK_DIGITS:
        return None
    try:
        token, rank = binascii.a2b_base64(word), int(digits)
    except ValueError:  # binascii.Error is one
        return None
    written = b"%b %d" % (binascii.b2a_base64(token, newline=False), rank)
    return (token, rank) if token and rank >= 0 and written == line else None


def _bad_line(path: str | Path, number: int, line: bytes) -> str:
    where = f"{shown(path)} line {number}"
    if number == 1 and line.startswith(b"\xef\xbb\xbf"):
        return f"{where} starts with a byte order mark, expected 'base64 rank'; save the file without it"
    if len(line) > MAX_LINE_BYTES:
        return f"{where} has {len(line)} bytes, expected at most {MAX_LINE_BYTES}; is it a vocabulary file?"
    return f"{where} is {shown(line[:60].decode('latin-1'))}, expected 'base64 rank' with a rank from 0; {_ADVICE}"


def _refuse_gaps(path: str | Path, ranks: dict[bytes, int], line_of: dict[int, int]) -> None:
    """Ranks must be 0 .. n-1 (they are distinct already), and every byte must be encodable."""
    count, last = len(ranks), max(line_of)
    if last != count - 1:
        missing = next(rank for rank in range(last) if rank not in line_of)
        raise FormatError(
            f"{shown(path)} has no rank {missing} although line {line_of[last]} has rank {last}, expected 0 to {count - 1}; {_ADVICE}"
        )
    for value in range(256):
        if bytes([value]) not in ranks:
            raise FormatError(f"{shown(path)} has no token for the byte {value:#04x}, expected all 256 in its {count} lines; {_ADVICE}")
