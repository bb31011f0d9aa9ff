"""Music and noises that people recorded or composed: the data of free games, as Debian packages them.

Formulas and phrases of single notes teach the difference between music and noise, but not how wide either is. Other games are heard in
training than in the test. Packages and licences: SOURCES.md. A package that is not installed may be unpacked into a folder instead,
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
from demo.noises import at_level

GAMES = "usr/share/games"
# Folders of GAMES, and which of their files.
MUSIC = {
    "train": ("lincity-ng/music", "asc/music", "singularity/music", "supertux2/music", "warmux/music", "hedgewars/Data/Music"),
    "test": ("colobot/music", "etr/music", "marsshooter/audio/music", "trackballs/music", "freecol/default/resources/music"),
}
NOISE = {
    "train": ("lincity-ng/sounds", "megaglest/tilesets", "megaglest/techs/megapack/commondata/sounds", "warmux/sound/default/weapons"),
    "test": ("etr/sounds", "hedgewars/Data/Sounds", "trackballs/sfx"),
}
# Of the sounds, those that nobody could take for speech or music: no crowds, shouts, jingles or choirs.
NOISES = re.compile(
    r"(Blacksmith|Build|Coal|Dirt|Farm|Fire|Green|Harbor|Industry|Mill|MonumentConstruction|OreMine|OrganicFarm|Parkland|Power|Rail|Raze"
    r"|Recycle|Rocket|Substation|Tip|Trafic|Water|WindMill)\w*"  # of lincity-ng
    r"|wind|day|night|nightime|sunny_day|desertday|rain|wolf|hawk|rooster|owl|chicken|mudchute_cow_1"  # of megaglest, like the next line
    r"|(air_|anvil|arrow_hit|catapult|cow|defense_tower|dragon_hit|golem_walk|horseman_walk|orni|pig)\w*"
    r"|(aircraft|airhammer|anvil|blowtorch|construct|dynamite|embers|explosion|flame|grenade|gun|jetpack|m16|ricoche|riot|rocket|shotgun)\w*"
    r"|\w+_slide|tree_hit|roll_sound|machine_loop|crash|sandcrash"  # of etr and trackballs, and of hedgewars:
    r"|bee|drillgun|flamethrower|minigun|mortar|pickhammer|plane|rcplane|splash|steam|steps|whipcrack|ice_beam|firepunch_hit|landgun"
)
ENDINGS = (".ogg", ".wav", ".mp3")
LEAST_LEVEL = 1e-3  # root mean square: below it a cut is a pause
TRIES = 20


@functools.cache
def sounds_of(root: Path, kind: str, test: bool) -> list[Path]:
    """The files of a kind, "music" or "noise".

    Raises FileNotFoundError where a game is missing: with fewer of them a kind would be less wide, and nobody would know.
    """
    folders = [root / GAMES / folder for folder in (MUSIC if kind == "music" else NOISE)["test" if test else "train"]]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise FileNotFoundError(f"no {', '.join(missing)}: install their packages (demo/SOURCES.md), or unpack them and give --root")
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in ENDINGS and path.stat().st_size > 0)
    return [path for path in files if kind == "music" or NOISES.fullmatch(path.stem)]


def cut(path: Path, draw: np.random.Generator, count: int) -> np.ndarray:
    """`count` samples [count] of a file from anywhere in it; of a shorter file all, again and again with pauses of up to half a second."""
    with soundfile.SoundFile(path) as file:
        wanted = -(-count * file.samplerate // RATE)
        file.seek(int(draw.integers(max(file.frames - wanted, 0) + 1)))
        samples = file.read(wanted, dtype="float64", always_2d=True).mean(axis=1)
        samples = soxr.resample(samples, file.samplerate, RATE)[:count]
    parts, now = [], 0
    while now < count:
        parts += [samples, np.zeros(int(draw.integers(RATE // 2)))]
        now += len(parts[-2]) + len(parts[-1])
    return np.concatenate(parts)[:count]


def recorded(root: Path, kind: str, draw: np.random.Generator, count: int, test: bool) -> tuple[str, np.ndarray]:
    """Where a sound of a kind is from, and its samples [count] at -35 to -12 dB."""
    files = sounds_of(root, kind, test)
    for _ in range(TRIES):
        path = files[draw.integers(len(files))]
        samples = cut(path, draw, count)
        if np.sqrt(np.mean(samples**2)) > LEAST_LEVEL:
            return str(path.relative_to(root / GAMES)), at_level(samples, draw.uniform(-35, -12))
    raise ValueError(f"{TRIES} cuts of {kind} were pauses")
