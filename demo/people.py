"""Speech of people that nobody has written down for the training: `python -m demo.people --data build/demo MODEL`.

Telephone prompts in French, Italian and Russian; the names of things in a dozen languages; and what actors and announcers say in games,
in Czech, Dutch and English. No transcript of it is read, none of its words is taught. MODEL writes down what it hears, right or wrong,
and a model that learns more goes on hearing that (likeness.py): what it made of people would fade otherwise, while synthesisers are all
that it is taught by. No speaker of the tests is among them.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

import qwenaudio_np
from demo.assemble import trimmed
from demo.clip_store import RATE, ClipStore, data_parser
from demo.evaluate import run_task
from demo.noises import at_level
from demo.real import read_sound
from demo.recordings import SHARE, files_in
from demo.voices import Speech
from qwenaudio_np.special_tokens import TAG_SHAPE

PROMPTS = ("fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")  # of asterisk/sounds; es_MX_f_Allison is a speaker of the tests
FISHES = "games/fillets-ng/sound"
LANGUAGES = ("cs", "nl")
QUEEN = "scummvm/flight-of-the-amazon-queen/queen.1c"
INDEX = 400_000  # bytes of it, at least, that hold the index
SPOKEN_LINE = re.compile(rb"[0-9A-Z]{6,8}\.SB\0.(.{4})(.{4})", re.DOTALL)  # its name, a byte, where it starts, and its size
STAMPS = "tuxpaint/stamps"
EVERY = 5  # of seven thousand: the languages take turns
# Folders of games with voices in them, and which files those are.
VOICES = {
    "games/boswars/units": r".*(ready|completed|underattack|select|action)",
    "games/crrcsim/sounds/f3f": r".*",
    "games/flightgear/Sounds/mk-viii": r".*",
    "games/flightgear/Sounds/tcas": r".*",
    "games/netpanzer/sound": r"(\w\w-selected|move|target)_\w+|yessir|attack",
    "games/redeclipse/data/sounds/announcer": r".*",
    "games/redeclipse/data/sounds/voice": r".*",
    "gigalomania/sound": r"(?!pain|misc)\w+_\w+",
}
SHORTEST, LONGEST = 0.7, 14.0  # seconds

Sound = tuple[str, np.ndarray]  # who, and samples [n] at 16 kHz within -1 .. 1


def prompts(root: Path) -> Iterator[Sound]:
    """Asterisk's prompts, three speakers, in turn."""
    for files in zip(*(sorted((root / SHARE / "asterisk/sounds" / speaker).rglob("*.g722")) for speaker in PROMPTS), strict=False):
        for speaker, path in zip(PROMPTS, files, strict=True):
            yield speaker, read_sound(path)


def fishes(root: Path) -> Iterator[Sound]:
    """Fish Fillets: some dozen actors in two languages."""
    for path in sorted((root / SHARE / FISHES).rglob("*.ogg")):
        if path.parent.name in LANGUAGES:
            yield f"fillets {path.parent.name}", read_sound(path)


def queen(root: Path) -> Iterator[Sound]:
    """Flight of the Amazon Queen, the spoken lines: MP3 streams in one large file, whose index gives each one's start and size."""
    data = (root / SHARE / QUEEN).read_bytes()
    for entry in SPOKEN_LINE.finditer(data, 0, INDEX):
        start, size = (int.from_bytes(part, "big") for part in entry.groups())
        samples, rate = soundfile.read(io.BytesIO(data[start : start + size]), always_2d=True)
        yield "queen", soxr.resample(samples.mean(axis=1), rate, RATE)


def stamps(root: Path) -> Iterator[Sound]:
    """Tux Paint's stamps: what is on some of them, named by speakers of a dozen languages."""
    for path in sorted((root / SHARE / STAMPS).rglob("*_desc*.ogg"))[::EVERY]:
        yield f"stamps {path.stem.partition('_desc')[2].strip('_') or 'en'}", read_sound(path)


def voices(root: Path) -> Iterator[Sound]:
    """Warnings of a cockpit, announcers, soldiers: VOICES."""
    for path in files_in(root, VOICES):
        yield str(path.parent.relative_to(root / SHARE)), read_sound(path)


SOURCES = {"people_prompts": prompts, "people_fishes": fishes, "people_queen": queen, "people_stamps": stamps, "people_voices": voices}


def main() -> None:
    """Write the sources."""
    parser = data_parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the packages are unpacked (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=700, help="most of a source, evenly spread over it (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=list(SOURCES), help="these sources only")
    parser.add_argument("model", type=Path, help="whose transcripts are the labels")
    arguments = parser.parse_args()
    model = qwenaudio_np.load(arguments.model, threads=1)
    for source in arguments.only:
        write(source, arguments, model)


def write(source: str, arguments: argparse.Namespace, model: qwenaudio_np.QwenAudio) -> None:
    """The missing clips of a source. Raises FileNotFoundError where its package is missing."""
    sounds = [sound for sound in SOURCES[source](arguments.root) if SHORTEST < len(sound[1]) / RATE < LONGEST]
    if not sounds:
        raise FileNotFoundError(f"{arguments.root / SHARE}: nothing of {source}; install its packages (demo/SOURCES.md), or give --root")
    store, count = ClipStore(arguments.data, source), min(arguments.clips, len(sounds))
    for index in store.missing(count):
        speaker, samples = sounds[index * len(sounds) // count]
        samples = at_level(trimmed(Speech(samples, speaker)).samples, -23.0)
        samples /= max(1.0, np.abs(samples).max())
        words = TAG_SHAPE.sub(" ", run_task(model, "asr", samples)).split()
        store.write(index, samples, kind="heard", text=" ".join(words), voice=speaker, split="train")


if __name__ == "__main__":
    main()
