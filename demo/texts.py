"""Prose of the training speech, in pieces of 4 to 26 words.

Everything here returns a pair (label, spoken): the label is what the model is to answer (lower case words and apostrophes), the spoken
form is what a synthesiser reads (case and punctuation kept, abbreviations and numbers written out). Both hold the same words.

Sources and licences of the prose: SOURCES.md. "Sense and Sensibility" is left out: the recordings that measure this model read from it.
"""

from __future__ import annotations

import re
import subprocess
import zlib
from collections import Counter
from pathlib import Path

from demo.number_words import cardinal, year

Piece = tuple[str, str]

ABBREVIATIONS = {
    "Mr": "Mister", "Mrs": "Missus", "Dr": "Doctor", "St": "Saint", "Messrs": "Messieurs", "Capt": "Captain", "Col": "Colonel",
    "Rev": "Reverend", "Prof": "Professor", "Gen": "General", "Esq": "Esquire", "vs": "versus",
}
SHORTEST, LONGEST = 4, 26  # words of a piece: LONGEST slow words fill about 14 seconds
SHARES = {"austen": 1.0, "fortunes": 1.0, "bible": 0.35}  # part of each source's pieces that is used
HELD_OUT = 20  # every HELD_OUT-th piece, by its own hash, is read by test voices only
_FORTUNES = (
    "computers cookie definitions disclaimer drugs education ethnic food fortunes goedel humorists kids law literature love medicine "
    "men-women miscellaneous news paradoxum people perl pets platitudes politics riddles science sports startrek tao wisdom work"
)


def prose_pieces(austen: Path) -> list[Piece]:
    """All usable pieces of prose, each once, in an order that depends on nothing but the text itself."""
    found: dict[str, str] = {}
    paragraphs = {"austen": austen_paragraphs(austen), "fortunes": fortune_paragraphs(), "bible": bible_paragraphs()}
    for name, texts in paragraphs.items():
        for label, spoken in (piece for text in texts for piece in pieces(text)):
            if zlib.crc32(label.encode()) % 1000 < 1000 * SHARES[name]:
                found.setdefault(label, spoken)
    counts = Counter(word for label in found for word in label.split())
    # A word that is nowhere else in the text is most often a misprint, a piece of code or a name that no rule can pronounce.
    known = [(label, spoken) for label, spoken in found.items() if all(counts[word] > 1 for word in label.split())]
    return sorted(known, key=lambda piece: zlib.crc32(piece[0][::-1].encode()))


def example_pieces(wordnet: Path) -> list[Piece]:
    """The sentences by which WordNet shows how words are used: short, modern, of very many words. `wordnet`: its dictionaries' folder."""
    dictionaries = [(wordnet / f"data.{part}").read_text("ascii") for part in ("adj", "adv", "noun", "verb")]
    sentences = [sentence for text in dictionaries for sentence in re.findall(r'; "([^"\n]+)"', text)]
    found = dict(piece for sentence in sentences for piece in pieces(sentence))
    return sorted(found.items(), key=lambda piece: zlib.crc32(piece[0][::-1].encode()))


def is_held_out(label: str) -> bool:
    """Whether a piece belongs to the test voices."""
    return zlib.crc32(label.encode()) % HELD_OUT == 0


def austen_paragraphs(path: Path) -> list[str]:
    """Paragraphs of five novels from the R package janeaustenr: `path` is its data/Rdata.rdb, zlib streams of serialised vectors."""
    blob, start, paragraphs = path.read_bytes(), 0, []
    while start < len(blob):
        inflate = zlib.decompressobj()
        book = inflate.decompress(blob[start + 4 :])  # each stream follows its length, 4 bytes
        start = len(blob) - len(inflate.unused_data)
        lines = _serialised_strings(book)
        if "SENSE AND SENSIBILITY" not in lines[0].upper():
            paragraphs += "\n".join(lines).split("\n\n")
    return paragraphs


def _serialised_strings(data: bytes) -> list[str]:
    """The strings of one serialised R character vector: each a CHARSXP header (00 04 00 09), a length, and its bytes."""
    strings = []
    header = b"\x00\x04\x00\x09"
    at = data.index(header)
    while data[at : at + 4] == header:
        length = int.from_bytes(data[at + 4 : at + 8], "big")
        strings.append(data[at + 8 : at + 8 + length].decode("utf-8"))
        at += 8 + length
    return strings


def fortune_paragraphs() -> list[str]:
    """The sayings of Debian's fortunes without their authors' lines."""
    texts = [Path("/usr/share/games/fortunes", name).read_text("utf-8") for name in _FORTUNES.split()]
    return [re.split(r"\n\s*-- ", saying)[0] for text in texts for saying in text.split("\n%\n")]


def bible_paragraphs() -> list[str]:
    """The verses of the King James Version, read with Debian's bible-kjv."""
    lines = subprocess.run(["bible", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.partition(" ")[2].replace("LORD", "Lord") for line in lines]


def pieces(paragraph: str) -> list[Piece]:
    """The usable pieces of a paragraph: long sentences cut at their commas, short neighbours joined to a length drawn by their text."""
    parts = [part for sentence in re.split(r"(?<=[.!?])\s+", write_out(paragraph)) for part in _cut(sentence)]
    found: list[Piece] = []
    wanted = 0  # words of the last piece, at which it takes no more
    for part in parts:
        label = label_of(part)
        words = label.split() if label else []
        if not label or len(words) > LONGEST:  # a part of signs alone has an empty one
            wanted = 0
        elif found and len(found[-1][0].split()) + len(words) <= wanted:
            found[-1] = (f"{found[-1][0]} {label}", f"{found[-1][1]} {part}")
        else:
            found.append((label, part))
            wanted = SHORTEST + zlib.crc32(label.encode()) % (LONGEST - SHORTEST + 1)
    return [piece for piece in found if len(piece[0].split()) >= SHORTEST]


def _cut(sentence: str) -> list[str]:
    """A sentence in parts of at most LONGEST words, cut after a comma, semicolon or colon."""
    parts = [""]
    for clause in re.findall(r"[^,;:]+[,;:]?", sentence):
        if len((parts[-1] + clause).split()) > LONGEST and parts[-1]:
            parts.append("")
        parts[-1] = (parts[-1] + " " + clause.strip()).strip()
    return parts


def write_out(text: str) -> str:
    """Text with its abbreviations and numbers as words and only the punctuation that every synthesiser reads alike."""
    text = text.translate(str.maketrans("’‘“”\t\n", "''\"\"  ", "_"))
    # Some books leave out the full stop of a title before a name.
    text = re.sub(r"\b(" + "|".join(ABBREVIATIONS) + r")(?:\.|(?= [A-Z]))", lambda match: ABBREVIATIONS[match[1]], text)
    text = re.sub(r"(?<![\w.,:/$-])\d{1,4}(?![\w:/%-]|[.,]\d)", lambda match: _number_words(match[0]), text)
    text = re.sub(r"\s*(?:--+|—)\s*|\s+-\s+", ", ", text)
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<!\w)'+|'+(?!\w)|[\"()]", " ", text)  # an apostrophe inside a word stays, quotation marks go
    text = re.sub(r"([,;:.!?])(?:\s*[,;:.])+", r"\1", text)
    return re.sub(r"\s+([,;:.!?])", r"\1", re.sub(r"\s+", " ", text)).strip(" ,;:")


def _number_words(digits: str) -> str:
    number = int(digits)
    return year(number) if 1100 <= number <= 1999 else cardinal(number)


def label_of(spoken: str) -> str | None:
    """The words of a spoken form, or None where it holds anything that its words do not say (signs, codes, acronyms, initials)."""
    words = re.sub(r"[,;:.!?]", " ", spoken).split()
    plain = all(re.fullmatch(r"[A-Za-z]+(?:'[A-Za-z]+)*", word) for word in words)
    if not plain or any(word.isupper() and word not in ("I", "A", "O") for word in words) or re.search(r"[.!?,;:]\S", spoken):
        return None
    if any(len(word) == 1 and word not in "aAIO" for word in words) or re.match(r"\w:", spoken):
        return None
    return " ".join(words).lower()
