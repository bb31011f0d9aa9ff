"""Transcripts as their authors wrote them -> the words that are said: lower case, apostrophes, nothing else."""

from __future__ import annotations

import re

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIGNS = {"*": " star ", "#": " pound "}
# Misspelt in the transcripts, or written with a hyphen inside what is one word.
CORRECTIONS = {
    "de-activated": "deactivated",
    "exclaimation-point": "exclamation point",
    "fourtieth": "fortieth",
    "indentified": "identified",
    "re-record": "rerecord",
    "represenatives": "representatives",
    "thru": "through",
    "umute": "unmute",
    "un-indentified": "unidentified",
    "witheld": "withheld",
    "xray": "x ray",
}


def spoken_words(transcript: str) -> str | None:
    """The words of a transcript, separated by single spaces; None if it has none or does not say how they are spoken.

    Notes in brackets are left out. Abbreviations in capitals are spelled as letters, single digits and signs become words;
    longer numbers, addresses and version numbers have no one reading.
    """
    text = re.sub(r"\[[^]]*\]|\([^)]*\)|<[^>]*>", " ", transcript)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"\.{2,}|[,;:?!\"]", " ", text)
    words = [said for token in text.split() for said in _said(token)]
    if not words or not all(re.fullmatch(r"[a-z]+('[a-z]+)*", word) for word in words):
        return None
    return " ".join(words)


def _said(token: str) -> list[str]:
    """What one token between spaces says; characters that are no letters stay where the token cannot be read."""
    if re.fullmatch(r"([A-Z]\.)+", token):
        return token.lower().replace(".", " ").split()
    token = token.rstrip(".")
    if re.fullmatch(r"[0-9]?[A-Z]{2,4}|[0-9][A-Z]?", token):
        return [DIGITS[int(letter)] if letter.isdigit() else letter.lower() for letter in token]
    lower = token.lower()
    return CORRECTIONS.get(lower, lower.replace("-", " ")).split()


def asterisk_transcripts(text: str) -> dict[str, str]:
    """Name of recording -> transcript, from the lines `name: transcript`; lines that begin with `;` are comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(";")]
    return {name.strip(): said.strip() for name, _, said in (line.partition(":") for line in lines)}


def sphinx_transcripts(text: str) -> dict[str, str]:
    """Name of recording -> words, from the lines `<s> words </s> (name)`."""
    found = re.findall(r"^<s>(.*)</s>\s*\((.*)\)\s*$", text, re.MULTILINE)
    return {name: " ".join(words.lower().split()) for words, name in found}
