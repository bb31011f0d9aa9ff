"""Recordings of real people, for evaluation only: `python -m demo.real --data build/demo`.

Needs Debian's `asterisk-core-sounds-en` (what is said), `asterisk-core-sounds-en-g722`, `klettres-data`, `ktuberling-data` and
`pocketsphinx-testdata`. None of these clips is ever used in training, and none is committed, apart from those in examples/.
"""

from __future__ import annotations

import functools
import gzip
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from demo import g722
from demo.assemble import sounding
from demo.clip_store import FULL_SCALE, RATE, ClipStore, data_argument
from demo.transcripts import asterisk_transcripts, sphinx_transcripts, spoken_words

ASTERISK = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
ASTERISK_TEXT = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
KLETTRES = Path("/usr/share/klettres")
KTUBERLING = Path("/usr/share/ktuberling/sounds/en")
SPHINX = Path("/usr/share/pocketsphinx/test/data")

LONGEST = 28.0  # seconds; the encoder hears 30
# Recordings with other sounds than speech in them, and names that no spelling tells how to say.
ASTERISK_LEFT_OUT = {"vm-intro", "spy-dahdi", "spy-iax", "spy-iax2", "spy-sip", "spy-h323"}
# How many strings are joined from single recordings, of which words, how many each.
STRINGS = {"digits": (160, 3, 7), "letters": (60, 3, 5), "phonetic": (30, 2, 4), "numbers": (50, 1, 1)}
# File names that are not the word itself.
KTUBERLING_WORDS = {
    "broccolli": "broccoli",
    "fallingstar": "falling star",
    "moonwalker": "moon walker",
    "palmtree": "palm tree",
    "sphynx": "sphinx",
    "ufo": "u f o",
}
KLETTRES_LEFT_OUT = {"aw", "ch", "th"}  # sounds, not words
# Recordings of pocketsphinx that have no transcription file: what its grammars and its list of tests say.
SPHINX_WORDS = {
    "goforward": "go forward ten meters",
    "tidigits/dhd.2934z": "two nine three four zero",
}

Clip = tuple[np.ndarray, dict[str, Any]]  # samples [n], labels


def _labels(kind: str, text: str, voice: str, part: str, words: list[list[Any]] | None = None) -> dict[str, Any]:
    return {"kind": kind, "text": text, "words": words, "voice": voice, "split": "test", "part": part}


def read_sound(path: Path) -> np.ndarray:
    """The samples [n] of a G.722, raw (16 kHz, 16-bit) or sound file: mono, at 16 kHz, float64 within -1 .. 1."""
    if path.suffix == ".g722":
        return g722.decode(path.read_bytes()) / FULL_SCALE
    if path.suffix == ".raw":
        return np.fromfile(path, "<i2") / FULL_SCALE
    samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    mono = samples.mean(axis=1)
    return mono if rate == RATE else np.clip(soxr.resample(mono, rate, RATE), -1, 1)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """The part that sounds: where a word begins and ends."""
    start, end = sounding(samples)
    return samples[start:end]


def joined(words: list[tuple[str, np.ndarray]], draw: random.Random) -> tuple[np.ndarray, list[list[Any]]]:
    """Trimmed recordings one after the other with gaps of 50 to 400 ms: samples [n], and [word, start, end] in seconds for each."""
    blocks, times, now = [], [], 0
    for word, samples in words:
        gap = round(draw.uniform(0.05, 0.4) * RATE)
        blocks += [np.zeros(gap), samples]
        times.append([word, round((now + gap) / RATE, 3), round((now + gap + len(samples)) / RATE, 3)])
        now += gap + len(samples)
    return np.concatenate([*blocks, np.zeros(round(draw.uniform(0.1, 0.4) * RATE))]), times


@functools.cache
def asterisk_texts() -> dict[str, str]:
    """Name of recording -> words, for those whose words are certain."""
    with gzip.open(ASTERISK_TEXT, "rt", encoding="utf-8") as stream:
        transcripts = asterisk_transcripts(stream.read())
    said = {name: spoken_words(text) for name, text in transcripts.items() if name not in ASTERISK_LEFT_OUT}
    found = {name: words for name, words in sorted(said.items()) if words and (ASTERISK / f"{name}.g722").exists()}
    if not found:
        raise FileNotFoundError(f"{ASTERISK}: no recordings")
    return found


def asterisk_prompts() -> Iterator[Clip]:
    """Sentences and parts of sentences: three words and more."""
    for name, text in asterisk_texts().items():
        samples = read_sound(ASTERISK / f"{name}.g722")
        if len(text.split()) > 2 and len(samples) <= LONGEST * RATE:
            yield samples, _labels("read", text, "Allison Smith", "prompt")


def asterisk_words() -> Iterator[Clip]:
    """Digits, numbers, letters, spelling words and short commands one by one; then strings joined from them, with exact times."""
    for name, text in asterisk_texts().items():
        if len(text.split()) <= 2:
            yield read_sound(ASTERISK / f"{name}.g722"), _labels("words", text, "Allison Smith", name.rpartition("/")[0] or "command")
    for part, (count, fewest, most) in STRINGS.items():
        for index in range(count):
            draw = random.Random(f"asterisk_words/{part}/{index}")
            names = _number(draw.randrange(21, 1000)) if part == "numbers" else _string(draw, part, draw.randint(fewest, most))
            words = [(asterisk_texts()[name], trimmed(read_sound(ASTERISK / f"{name}.g722"))) for name in names]
            samples, times = joined(words, draw)
            yield samples, _labels("words", " ".join(word for word, _ in words), "Allison Smith", f"{part} joined", times)


def _string(draw: random.Random, part: str, count: int) -> list[str]:
    """Names of `count` recordings of digits, letters or the words that spell them."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = {
        "digits": [f"digits/{digit}" for digit in range(10)],
        "letters": [f"letters/{letter}" for letter in letters],
        "phonetic": [f"phonetic/{letter}_p" for letter in letters if letter != "x"],
    }
    return draw.choices(names[part], k=count)


def _number(number: int) -> list[str]:
    """Names of the recordings that say a number from 21 to 999."""
    hundreds, rest = divmod(number, 100)
    said = [str(hundreds), "hundred"] if hundreds else []
    said += [str(rest)] if 0 < rest <= 20 else [str(part) for part in (rest // 10 * 10, rest % 10) if part]
    return [f"digits/{name}" for name in said]


def klettres() -> Iterator[Clip]:
    """Letters and short words, said by an American and a British speaker."""
    for language in ("en", "en_GB"):
        for path in sorted((KLETTRES / language).glob("*/*.ogg")):
            word = path.stem.lower()
            if word not in KLETTRES_LEFT_OUT:
                text = "zed" if (language, word) == ("en_GB", "z") else word
                yield read_sound(path), _labels("words", text, f"KLettres {language}", path.parent.name)


def ktuberling() -> Iterator[Clip]:
    """Names of things in a children's game."""
    for path in sorted(KTUBERLING.glob("*.ogg")):
        name = re.sub(r"^(egypt|moon|pizzeria|tv)_", "", path.stem)
        yield read_sound(path), _labels("words", KTUBERLING_WORDS.get(name, name), "KTuberling en", "word")


def librivox() -> Iterator[Clip]:
    """Five sentences of "Sense and Sensibility", read for LibriVox."""
    texts = sphinx_transcripts((SPHINX / "librivox/transcription").read_text("utf-8"))
    for name, text in texts.items():
        yield read_sound(SPHINX / f"librivox/{name}.wav"), _labels("read", text, "LibriVox reader", "sentence")


def sphinx_words() -> Iterator[Clip]:
    """Playing cards, commands and digits."""
    cards = sphinx_transcripts((SPHINX / "cards/cards.transcription").read_text("utf-8"))
    for name, text in cards.items():
        yield read_sound(SPHINX / f"cards/{name}.wav"), _labels("words", text, "pocketsphinx cards", "cards")
    for name, text in SPHINX_WORDS.items():
        yield read_sound(SPHINX / f"{name}.raw"), _labels("words", text, f"pocketsphinx {name}", "commands")


SOURCES: dict[str, Callable[[], Iterator[Clip]]] = {
    "asterisk_words": asterisk_words,
    "asterisk_prompts": asterisk_prompts,
    "klettres": klettres,
    "ktuberling": ktuberling,
    "librivox": librivox,
    "sphinx_words": sphinx_words,
}


def main() -> None:
    """Write the missing clips of every source."""
    data = data_argument(__doc__)
    missing = [source for source, clips in SOURCES.items() if not write(ClipStore(data, source), clips)]
    if missing:
        raise SystemExit(f"nothing, or not all, of {', '.join(missing)}: install the Debian packages (demo/SOURCES.md)")


def write(store: ClipStore, clips: Callable[[], Iterator[Clip]]) -> bool:
    """The clips of a source that are not there yet. Returns whether its package is there, and whole."""
    count = 0
    try:
        for count, (samples, labels) in enumerate(clips(), 1):
            if count - 1 not in store.done:
                store.write(count - 1, samples, **labels)
    except FileNotFoundError:
        return False
    return count > 0


if __name__ == "__main__":
    main()
