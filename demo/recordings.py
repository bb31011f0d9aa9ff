"""Music and noises that people recorded or composed: the data of free games, as Debian packages them.

Formulas and phrases of single notes teach the difference between music and noise, but not how wide either is. Other games are heard in
training than in the tests. Packages and licences: SOURCES.md. A package that is not installed may be unpacked into a folder instead,
`dpkg -x PACKAGE.deb FOLDER`, and the folder given to demo.scenes as --root.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr

from demo.clip_store import RATE
from demo.game_sounds import MUSIC, NOISE, NOT_MUSIC
from demo.noises import at_level

SHARE = "usr/share"
ENDINGS = (".ogg", ".opus", ".wav", ".mp3")
LEAST_LEVEL = 1e-3  # root mean square: below it a cut is a pause
TRIES = 20
SPEEDS = (0.75, 1.3)  # how fast a sound is played in training: more sounds than there are files
OTHERS = 0.5  # how often a short sound is followed by others of its folder rather than by itself
LAYERED = 0.3  # how often a noise of the training has another one behind it


@functools.cache
def sounds_of(root: Path, kind: str, test: bool) -> list[Path]:
    """The files of a kind, "music" or "noise"; of the games of the second test "other_music" or "other_noise"."""
    name = kind.removeprefix("other_")
    part = "other" if name != kind else "test" if test else "train"
    return files_in(root, dict.fromkeys(MUSIC[part], rf"(?!{'|'.join(NOT_MUSIC)}).*") if name == "music" else NOISE[part])


def files_in(root: Path, wanted: dict[str, str]) -> list[Path]:
    """The sounds in each folder of /usr/share whose names, without their endings, are as they should be.

    Raises FileNotFoundError where a game is missing: with fewer of them a kind would be less wide, and nobody would know.
    """
    if missing := [folder for folder in wanted if not (root / SHARE / folder).is_dir()]:
        raise FileNotFoundError(f"{root / SHARE}: no {', '.join(missing)}; install their packages (demo/SOURCES.md), or give --root")
    return [path for folder, names in wanted.items() for path in sounds_in(root / SHARE / folder) if re.fullmatch(names, path.stem)]


def sounds_in(folder: Path) -> list[Path]:
    """The files with sound in a folder and the folders in it."""
    return sorted(path for path in folder.rglob("*") if path.suffix in ENDINGS and path.stat().st_size > 0)


def cut(paths: list[Path], draw: np.random.Generator, count: int, speed: float = 1.0) -> np.ndarray:
    """`count` samples [count] from anywhere in the first file; if it is shorter, then of others too, with pauses of up to half a second."""
    parts, now = [], 0
    while now < count:
        part = read_part(paths[draw.integers(len(paths))] if parts else paths[0], draw, count, speed)
        parts += [part, np.zeros(int(draw.integers(RATE // 2)))]
        now += len(part) + len(parts[-1])
    return np.concatenate(parts)[:count]


def read_part(path: Path, draw: np.random.Generator, count: int, speed: float) -> np.ndarray:
    """At most `count` samples of a file, from anywhere in it."""
    with soundfile.SoundFile(path) as file:
        rate = file.samplerate * speed
        wanted = int(-(-count * rate // RATE))
        file.seek(int(draw.integers(max(file.frames - wanted, 0) + 1)))
        return soxr.resample(file.read(wanted, dtype="float64", always_2d=True).mean(axis=1), rate, RATE)[:count]


def recorded(root: Path, kind: str, draw: np.random.Generator, count: int, test: bool) -> tuple[str, np.ndarray]:
    """Where a sound of a kind is from, and its samples [count] at -35 to -12 dB; in training now and then two at once."""
    name, samples = one_recorded(root, kind, draw, count, test)
    if kind == "noise" and not test and draw.random() < LAYERED:
        behind, more = one_recorded(root, kind, draw, count, test)
        name, samples = f"{name}, {behind}", samples + more * draw.uniform(0.1, 1)
    return name, at_level(samples, draw.uniform(-35, -12))


def one_recorded(root: Path, kind: str, draw: np.random.Generator, count: int, test: bool) -> tuple[str, np.ndarray]:
    """A file, and samples [count] at -20 dB that begin with it; if it is short, others of its folder may follow.

    Raises ValueError if there are hardly any sounds in the files.
    """
    files = sounds_of(root, kind, test)
    for _ in range(TRIES):
        path = files[draw.integers(len(files))]
        alike = [other for other in files if other.parent == path.parent]
        samples = cut([path, *alike] if draw.random() < OTHERS else [path], draw, count, 1.0 if test else draw.uniform(*SPEEDS))
        if np.sqrt(np.mean(samples**2)) > LEAST_LEVEL:
            return str(path.relative_to(root / SHARE)), at_level(samples, -20.0)
    raise ValueError(f"{TRIES} cuts of {kind} were pauses")
