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

SHARE = "usr/share"
# Folders of SHARE with nothing but music, and what is none of it.
NOT_MUSIC = ("wind_ambient",)
MUSIC = {
    "train": (
        "games/lincity-ng/music",
        "games/asc/music",
        "games/singularity/music",
        "games/supertux2/music",
        "games/warmux/music",
        "games/hedgewars/Data/Music",
        "games/widelands/data/music",
        "unknown-horizons/content/audio/music",
        "games/warzone2100/music/albums",
        "games/wesnoth/1.16/data/core/music",
        "games/supertuxkart/data/music",
        "games/openclonk/Music.ocg",
        "games/fillets-ng/music",
        "games/flare/mods/fantasycore/music",
        "freedroidrpg/data/sound/music",
        "hyperrogue/music",
        "scummvm/drascula/audio",
        "starfighter/music",
        "asterisk/moh",
    ),
    "test": (
        "games/colobot/music",
        "games/etr/music",
        "games/marsshooter/audio/music",
        "games/trackballs/music",
        "games/freecol/default/resources/music",
    ),
}
# Folders with sounds, and which of them nobody could take for speech or music, by their names: no crowds, shouts, jingles or choirs.
NOISE = {
    "train": {
        "games/lincity-ng/sounds": r"(Blacksmith|Build|Coal|Dirt|Farm|Fire|Green|Harbor|Industry|Mill|MonumentConstruction|OreMine"
        r"|OrganicFarm|Parkland|Power|Rail|Raze|Recycle|Rocket|Substation|Tip|Trafic|Water|WindMill)\w*",
        "games/megaglest/tilesets": r"wind|day|night|nightime|sunny_day|desertday|rain",
        "games/megaglest/techs/megapack/commondata/sounds": r"wolf|hawk|rooster|owl|chicken|mudchute_cow_1"
        r"|(air_|anvil|arrow_hit|catapult|cow|defense_tower|dragon_hit|golem_walk|horseman_walk|orni|pig)\w*",
        "games/warmux/sound/default/weapons": r"(aircraft|airhammer|anvil|blowtorch|construct|dynamite|embers|explosion|flame|grenade|gun"
        r"|jetpack|m16|ricoche|riot|rocket|shotgun)\w*",
        "games/minetest/games/minetest_game/mods": r"(carts|default|doors|env_sounds|fire|tnt|xpanes)_.*",
        "games/wesnoth/1.16/data/core/sounds": r"(axe|bat-flapping|birds|bite|bow|campfire|cave-in|claws|club|crossbow|dagger|dart"
        r"|dragonstick|entangle|explosion|fire|fist|flail|flame|fuse|gunshot|hatchet|hiss|horse-(elf-)?canter|ink|knife|lightning|mace|melee-fire|miss"
        r"|morning|mud|night|pincers|poison|rumble|ship|skeleton-(big-)?hit|sling|spear|squishy|staff|sword|tail|throw|thunderstick|torch"
        r"|water-blast|wolf-growl|wose)(?!.*die).*",
        "games/widelands/data/sound": r"(?!lobby|message|under_attack|site_occupied|biginn|inn|tavern|ration|meal|ironping|goldping).*",
        "games/widelands/data/world/critters": r".*",
        "games/torcs/data/sound": r"(?!locked).*",
        "games/endless-sky/sounds": r"(?!alarm|fail).*",
        "buckle/wav": r".*-0",
        "unknown-horizons/content/audio/sounds": r"build|click|flippage|lumberjack\w*|sheepfield|smith|stonemason|windmill",
        "games/scorched3d/data/globalmods/none/data/wav": r"(?!beep|text|play|para).*",
        "games/scorched3d/data/globalmods/apoc/data/wav": r"(?!cheering|scream|extralife|fight4life|lockon|citysounds).*",
        "games/searchandrescue/sounds": r"(?!flir|screenshot|splash_human).*",
        "games/flare/mods/fantasycore/soundfx": r"(?!female|male|minotaur|goblin|zombie|level_up|warcry|heal|no_mana|timestop|potion).*",
        "games/flare/mods/empyrean_campaign/soundfx/environment": r".*",
        "games/supertuxkart/data/sfx": r"anvil|bowling_shoot|bzzt|car_revup|clock|hammer|inflate|locked|machine_sound|metal_clang|nitro"
        r"|parachute|plopp|plunger|shoot|skid|splash|static-radio|strike|swatter|wooden_bridge|(airplane|ball|crash|engine|exotic|explosion|fireworks|river"
        r"|waterfall)[\w-]*",
        "games/supertuxkart/data/tracks": r"cow|sheep|steamLocomotive|spaceship_engine\w*",
        "games/freeorion/default/data/sound/combat": r".*",
        "games/dink/dink/Sound": r"arrow|axe|bhit|bird1|bow1|burn|fire|open|punch|stairs|swing|sword2",
        "freedroidrpg/data/sound/effects": r"(swing|Glass|tux_foot|open_chest|Blast|Item_\w+_(Drop|Put)|Item_Drop|drop_|Pulse|Military"
        r"|Laser|Single|Phaser|Plasma|Exterminator|Sword)\w*",
        "hyperrogue/sounds": r"hit-(?!prin).*|fire|splash\d|steamhiss|trapdoor|(open|close)gate|click|apple",
        "starfighter/sound": r"(?!maledeath|item).*",
        "wordwarvi/sounds": r"rocket_exhaust_1|gunwheel_sound|tesla_tower|toyota\w*|zzzt|jetwash|clang|(metalbang|stonebang|flak"
        r"|missile_launch|volcano|missile_expl|big_expl|bombexpl|synthetic)\w*",
    },
    "test": {
        "games/etr/sounds": r"\w+_slide|tree_hit",
        "games/trackballs/sfx": r"roll_sound|machine_loop|crash|sandcrash",
        "games/hedgewars/Data/Sounds": r"baseballbat|bee|blowtorch|bump|drillgun|explosion|firepunch_hit|flamethrower|gun|hammer"
        r"|ice_beam\w*|jetpackboost|landgun|minetick|minigun|molotov|mortar|pickhammer|placed|plane|rcplane|rope\w+|shotgun\w+|shutterclick|sniperreload"
        r"|splash|steam|steps|whipcrack|\w*_?impact",
        "games/lugaru/Sounds": r"(?!Console|Music|Rabbit).*",
        "games/simutrans/pak/sound": r".*",
    },
}
ENDINGS = (".ogg", ".opus", ".wav", ".mp3")
LEAST_LEVEL = 1e-3  # root mean square: below it a cut is a pause
TRIES = 20
SPEEDS = (0.75, 1.3)  # how fast a sound is played in training: more sounds than there are files
OTHERS = 0.5  # how often a short sound is followed by others of its folder rather than by itself
LAYERED = 0.3  # how often a noise of the training has another one behind it


@functools.cache
def sounds_of(root: Path, kind: str, test: bool) -> list[Path]:
    """The files of a kind, "music" or "noise".

    Raises FileNotFoundError where a game is missing: with fewer of them a kind would be less wide, and nobody would know.
    """
    part = "test" if test else "train"
    wanted = dict.fromkeys(MUSIC[part], rf"(?!{'|'.join(NOT_MUSIC)}).*") if kind == "music" else NOISE[part]
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
