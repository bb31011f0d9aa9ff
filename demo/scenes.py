"""What kind of sound is it: speech, music, noise or silence? `python -m demo.scenes --data build/demo`.

Sources `scene_<kind>` for training and `scene_<kind>_test`; music and noise once more as they are in the data of games (recordings.py),
`scene_recorded_<kind>`, and those of two more games for a second test, `scene_other_<kind>_test`. Run it after demo.speech and demo.real:
the speech is cut from their clips.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from demo.clip_store import RATE, TRANSCRIBED, ClipStore, data_parser, read_clip, read_labels
from demo.noises import at_level, noise, silence, unit
from demo.phrases import phrase
from demo.recordings import recorded
from demo.synthesiser import FONTS, Synthesiser

TEST_CLIPS = 60  # of each kind
# For training, in the order in which they are made: speech is cut from other clips, and comes last.
TRAIN_CLIPS = {"noise": 5000, "silence": 400, "music": 1500, "recorded_noise": 5000, "recorded_music": 4500, "speech": 400}
OTHER_CLIPS = {"other_noise": 200, "other_music": 200}  # of the second test
SHORTEST, LONGEST = 2.0, 6.0  # seconds
TEST_SPEECH = "asterisk_prompts"

# Name of what is heard, and the samples [count], for (random numbers, count, whether it is for the test).
Maker = Callable[[np.random.Generator, int, bool], tuple[str, np.ndarray]]


def music_maker() -> Maker:
    """Random phrases played in a room, cut out anywhere, at -35 to -12 dB."""
    synthesiser = Synthesiser(gain=0.5, room=True)

    def make(draw: np.random.Generator, count: int, test: bool) -> tuple[str, np.ndarray]:
        lead = round(draw.uniform(0, 2) * RATE)
        seconds = (lead + count) / RATE
        music = phrase(random.Random(int(draw.integers(2**32))), seconds, test=test)
        samples = synthesiser.play(music.programs, music.notes, seconds)[lead:]
        used = " ".join(str(program.number) for program in music.programs.values())
        font = next(iter(music.programs.values())).font
        return f"{FONTS[font].stem} programs {used}", at_level(samples, draw.uniform(-35, -12))

    return make


def speech_maker(data: Path, root: Path) -> Maker:
    """Pieces of speech at -35 to -12 dB, half of them with a noise 10 to 30 dB below; shorter ones begin and end in silence.

    Every second noise is a recorded one.

    Raises FileNotFoundError if there is no speech to cut from.
    """
    lists = {path.stem: read_labels(path) for path in sorted((data / "clips").glob("*.jsonl")) if not path.stem.startswith("scene")}
    spoken = {name: [label for label in labels if label["kind"] in TRANSCRIBED] for name, labels in lists.items()}
    training = [labels for labels in spoken.values() if labels and labels[0]["split"] == "train"]
    if not training or not spoken.get(TEST_SPEECH):
        raise FileNotFoundError(f"{data / 'clips'}: no speech for training, or none of {TEST_SPEECH}; run demo.speech and demo.real first")

    def make(draw: np.random.Generator, count: int, test: bool) -> tuple[str, np.ndarray]:
        labels = spoken[TEST_SPEECH] if test else training[draw.integers(len(training))]
        label = labels[draw.integers(len(labels))]
        samples = at_level(placed(draw, read_clip(data / label["file"]), count), draw.uniform(-35, -14))
        if draw.random() < 0.5:
            below = 10 ** (-draw.uniform(10, 30) / 20) * np.sqrt(np.mean(samples**2))
            make_noise = noise if draw.random() < 0.5 else partial(recorded, root, "noise")
            samples = samples + below * unit(make_noise(draw, count, test)[1])
        return label["voice"], samples / max(1.0, np.abs(samples).max())

    return make


def placed(draw: np.random.Generator, samples: np.ndarray, count: int) -> np.ndarray:
    """`count` samples: a part of a longer clip, or all of a shorter one somewhere between silences."""
    spare = len(samples) - count
    if spare >= 0:
        start = draw.integers(spare + 1)
        return samples[start : start + count]
    before = draw.integers(-spare + 1)
    return np.pad(samples, (before, -spare - before))


def generator(source: str, index: int) -> np.random.Generator:
    """The random numbers of clip `index` of a source: its own, whatever else is made."""
    return np.random.default_rng([zlib.crc32(source.encode()), index])


def maker(kind: str, data: Path, root: Path) -> Maker:
    """What makes the clips of one kind; `root`: where the games' data are."""
    if kind == "music":
        return music_maker()
    if kind == "speech":
        return speech_maker(data, root)
    if kind.startswith(("recorded_", "other_")):
        return partial(recorded, root, kind.removeprefix("recorded_"))
    return {"noise": noise, "silence": silence}[kind]


def write_clips(data: Path, kind: str, make: Maker, test: bool) -> None:
    """Make the missing clips of one source."""
    source = f"scene_{kind}_test" if test else f"scene_{kind}"
    store, name = ClipStore(data, source), kind.rpartition("_")[2]
    for index in store.missing(OTHER_CLIPS.get(kind, TEST_CLIPS) if test else TRAIN_CLIPS[kind]):
        draw = generator(source, index)
        voice, samples = make(draw, round(draw.uniform(SHORTEST, LONGEST) * RATE), test)
        labels: dict[str, Any] = {"kind": "scene", "text": name, "voice": voice, "split": "test" if test else "train"}
        store.write(index, samples, **labels)


def main() -> None:
    """Write all fourteen sources; of those for training, speech is the last."""
    parser = data_parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the games' packages are unpacked (default: %(default)s)")
    arguments = parser.parse_args()
    for kind in TRAIN_CLIPS:
        make = maker(kind, arguments.data, arguments.root)
        for test in (False, True):
            write_clips(arguments.data, kind, make, test)
    for kind in OTHER_CLIPS:
        write_clips(arguments.data, kind, maker(kind, arguments.data, arguments.root), True)


if __name__ == "__main__":
    main()
