"""Writes the training speech: `python -m demo.speech --data build/demo`, resumable; `--only NAME ...` writes some of the sources.

Each source of SOURCES becomes clips/<source>/<index>.flac (16 kHz, mono, 16 bits, 0.6 to 14 s) and a line for each clip in
clips/<source>.jsonl: file, kind ("read" or "words"), text, words ([word, start, end] in seconds, or null), voice, split, seconds.
A clip depends on its source and index alone, except that the noise inside joe's model is drawn anew.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from demo.assemble import assembled, padded, trimmed, warped
from demo.clip_store import ClipStore, read_labels
from demo.sources import SOURCES, Source
from demo.texts import example_pieces, is_held_out, prose_pieces
from demo.voices import RATE, Speech, WordTimes
from demo.word_strings import (
    SOUND_LIKE_STRING_WORDS,
    single_word,
    spoken_string,
    spoken_word,
    telephone_string,
    word_string,
)

SHORTEST, LONGEST = 0.6, 14.0  # seconds
# Letters a second; outside of it the synthesiser went astray.
PACE = {"read": (6.0, 28.0), "words": (1.5, 28.0), "telephone": (1.5, 28.0), "snippets": (1.5, 28.0), "singles": (1.2, 28.0)}
WORDNET = Path("/usr/share/wordnet")
AUSTEN = Path("/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")


def snippet(words: list[str], rng: np.random.Generator) -> list[str]:
    """One to four words of a piece that follow each other."""
    count = min(int(rng.integers(1, 5)), len(words))
    start = int(rng.integers(len(words) - count + 1))
    return words[start : start + count]


class Writer:
    """Makes the clips of one source."""

    def __init__(self, source: Source, pieces: list[tuple[str, str]]) -> None:
        self.source, self.voice = source, source.voice()
        test = source.split == "test"
        mine = [piece for piece in pieces if is_held_out(piece[0]) == test]
        order = np.random.default_rng(zlib.crc32(source.name.encode())).permutation(len(mine))
        self.pieces = [mine[index] for index in order]
        self._takes: dict[tuple[str, str, int], Speech] = {}

    def clip(self, index: int) -> tuple[str, Speech] | None:
        """The text and sound of clip `index`, or None where the synthesiser failed it."""
        rng = np.random.default_rng([zlib.crc32(self.source.name.encode()), index])
        speaker = self.voice.speakers[rng.integers(len(self.voice.speakers))]
        try:
            text, speech, silence = self._said(index, speaker, rng)
        except ValueError:  # silent samples
            return None
        if rng.random() < self.source.warp:
            speech = warped(speech, float(rng.uniform(0.88, 1.14)))
        slowest, fastest = PACE[self.source.kind]
        if not slowest < len(text) / (len(speech.samples) / RATE) < fastest:
            return None
        speech = padded(speech, *rng.uniform(0.05, silence, 2))
        seconds = len(speech.samples) / RATE
        speech = padded(speech, 0.0, max(0.0, SHORTEST - seconds))
        return (text, speech) if seconds <= LONGEST else None

    def _said(self, index: int, speaker: str, rng: np.random.Generator) -> tuple[str, Speech, float]:
        """Text, trimmed speech, and the longest silence to put on each side of it."""
        if self.source.kind == "read":
            text, line = self.pieces[index % len(self.pieces)]
            return text, self._in_one_go(text.split(), line, speaker, rng), 0.4
        if self.source.kind == "snippets":
            words = snippet(self.pieces[index % len(self.pieces)][0].split(), rng)
            return " ".join(words), self._in_one_go(words, " ".join(words), speaker, rng), 1.0
        if self.source.kind == "singles":
            word = single_word(rng) if rng.random() < 0.65 else snippet(self.pieces[index % len(self.pieces)][0].split(), rng)[0]
            if word in SOUND_LIKE_STRING_WORDS:
                word = single_word(rng)
            return word, self._in_one_go([word], spoken_string([word], rng), speaker, rng), 0.8
        words = telephone_string(rng) if self.source.kind == "telephone" else word_string(rng)
        text = " ".join(words)
        if index % 2:
            return text, self._in_one_go(words, spoken_string(words, rng), speaker, rng), 1.0
        return text, self._word_by_word(words, speaker, rng), 1.0

    def _in_one_go(self, words: list[str], line: str, speaker: str, rng: np.random.Generator) -> Speech:
        speech = trimmed(self.voice.say(line, speaker, rng))
        times: WordTimes | None = None
        if speech.words is not None and len(speech.words) == len(words):
            times = [(word, start, end) for word, (_, start, end) in zip(words, speech.words, strict=True)]
        return Speech(speech.samples, speech.speaker, times)

    def _word_by_word(self, words: list[str], speaker: str, rng: np.random.Generator) -> Speech:
        """Words that were spoken one by one, each in a random take, with gaps of 0.03 to 0.6 s."""
        widest = rng.uniform(0.05, 0.6)
        takes = [self._take(word, speaker, int(rng.integers(self.source.takes))) for word in words]
        sounds = [(word, take.samples) for word, take in zip(words, takes, strict=True)]
        samples, times = assembled(sounds, [float(gap) for gap in rng.uniform(0.03, widest, len(words) - 1)])
        return Speech(samples, takes[0].speaker, times)

    def _take(self, word: str, speaker: str, take: int) -> Speech:
        key = (speaker, word, take)
        if key not in self._takes:
            rng = np.random.default_rng([zlib.crc32(f"{self.source.name} {speaker} {word}".encode()), take])
            said = spoken_word(word)
            speech = trimmed(self.voice.say(said[0].upper() + said[1:] + ".", speaker, rng))
            self._takes[key] = Speech(speech.samples / np.abs(speech.samples).max(), speech.speaker)
        return self._takes[key]


def write(source: Source, pieces: list[tuple[str, str]], data: Path, until: float) -> None:
    """Writes the missing clips of a source and says how fast; stops at the clock time `until`."""
    store = ClipStore(data, source.name)
    lengths = [clip["seconds"] for clip in read_labels(store.labels)] if store.done else []
    seconds, count, index = sum(lengths), len(lengths), max(store.done, default=-1) + 1
    if seconds >= source.hours * 3600 or count >= source.clips:
        return
    writer, began, before = Writer(source, pieces), time.monotonic(), seconds
    while seconds < source.hours * 3600 and count < source.clips and time.time() < until:
        if (clip := writer.clip(index)) is not None:
            save(store, source, index, *clip)
            seconds, count = seconds + len(clip[1].samples) / RATE, count + 1
        index += 1
    took = time.monotonic() - began
    print(f"{source.name}: {count} clips of {index}, {seconds / 3600:.2f} h, {(seconds - before) / took:.1f} times real time", flush=True)


def save(store: ClipStore, source: Source, index: int, text: str, speech: Speech) -> None:
    """One clip with its labels."""
    words = None if speech.words is None else [[word, round(start, 3), round(end, 3)] for word, start, end in speech.words]
    kind = "read" if source.kind == "read" else "words"
    store.write(index, speech.samples, kind=kind, text=text, words=words, voice=speech.speaker, split=source.split)


def cached_pieces(data: Path, austen: Path) -> dict[str, list[tuple[str, str]]]:
    """The prose and the examples, each collected once into text/<name>.tsv."""
    makers = {"prose": partial(prose_pieces, austen), "examples": partial(example_pieces, WORDNET)}
    return {name: _cached(data / "text" / f"{name}.tsv", make) for name, make in makers.items()}


def _cached(path: Path, make: Callable[[], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{label}\t{spoken}\n" for label, spoken in make()), "utf-8")
    pairs = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    return [(label, spoken) for label, spoken in pairs]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the training speech.")
    parser.add_argument("--data", type=Path, default=Path("build/demo"), help="folder of the training data (build/demo)")
    parser.add_argument("--austen", type=Path, default=AUSTEN, help="Rdata.rdb of Debian's r-cran-janeaustenr, where it is not installed")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[source.name for source in SOURCES], help="write these sources only")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many minutes")
    options = parser.parse_args()
    until = time.time() + 60 * options.minutes
    pieces = cached_pieces(options.data, options.austen)
    chosen = [source for source in SOURCES if source.name in (options.only or [source.name])]
    for source in sorted(chosen, key=lambda source: (options.only or [source.name]).index(source.name)):
        write(source, pieces[source.text], options.data, until)


if __name__ == "__main__":
    main()
