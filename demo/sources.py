"""Who reads what for training, and who for the tests: the sources of demo.speech."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from demo.morphs import Morphs
from demo.neural_voices import KOKORO_ENGLISH, KOKORO_FOREIGN, Hibari, Joe, Kokoro
from demo.voices import Espeak, Festival, Flite, Pico, RHVoice, Voice

CLIPS_AT_MOST = 20000

_VARIANTS = (
    "Alex Andy Annie Denis Gene Hugo Jacky Lee Marco Michael Mike adam anika benjamin boris caleb david ed edward f1 f2 f4 f5 "
    "grandma grandpa iven john klatt2 klatt4 linda m1 m3 m4 m5 m7 m8 max miguel norbert paul quincy rob shelby steph victor"
)
_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland")
ESPEAK_TRAIN = tuple(f"{accent}+{variant}" for accent in _ACCENTS for variant in _VARIANTS.split())
ESPEAK_TEST = ("en-us+f3", "en-us+m2", "en-gb+belinda", "en-gb+robert", "en-us+steph3")

KOKORO_TEST = ("af_sky", "am_puck", "bf_emma", "bm_lewis")  # and jm_kumo
KOKORO_TRAIN = (*KOKORO_ENGLISH * 2, *KOKORO_FOREIGN, *["blend"] * 12)


@dataclass(frozen=True)
class Source:
    """One set of clips: who speaks what, until `hours` of sound or `clips` clips are written.

    Kinds: "read", whole pieces of prose; "words", strings of digits, numbers, letters and commands; "telephone", the hardest of what
    people say to telephones; "snippets", one to four words torn out of the prose, so that a word alone may be any word; "singles", one
    word, of the strings' or, every third time, any. All labels but those of "read" have the kind "words".
    """

    name: str
    voice: Callable[[], Voice]
    kind: str
    hours: float
    split: str = "train"
    clips: int = CLIPS_AT_MOST
    warp: float = 0.0  # part of the clips that are played faster or slower
    takes: int = 3  # recordings of each single word by each speaker
    text: str = "prose"  # or "examples", those of WordNet


_flite, _espeak = partial(Flite, ("rms", "slt", "awb")), partial(Espeak, ESPEAK_TRAIN)
_slt = partial(Festival, ("cmu_us_slt_arctic_hts",))
_kal, _kal_diphone, _ked = partial(Flite, ("kal16",)), partial(Festival, ("kal_diphone",)), partial(Festival, ("ked_diphone",))
_rhvoice, _pico = partial(RHVoice, ("alan", "bdl", "clb")), partial(Pico, ("en-US", "en-GB"))
_persons = partial(Morphs, tuple(f"morph{number}" for number in range(1, 61)))
_mixtures, _kumo = partial(Kokoro, ("mixture",)), partial(Kokoro, ("jm_kumo",))
_kokoro, _kokoro_test = partial(Kokoro, KOKORO_TRAIN), partial(Kokoro, KOKORO_TEST)
SOURCES = (
    Source("hibari-read", Hibari, "read", 14.0, warp=0.7),
    Source("flite-read", _flite, "read", 9.0, warp=0.5),
    Source("hibari-examples", Hibari, "read", 2.0, warp=0.7, text="examples"),
    Source("flite-examples", _flite, "read", 1.5, warp=0.5, text="examples"),
    Source("morph-read", Morphs, "read", 26.0),
    Source("morph-examples", Morphs, "read", 4.0, text="examples"),
    Source("morph-words", _persons, "words", 6.0, takes=1),
    Source("morph-snippets", Morphs, "snippets", 3.0),
    Source("morph-singles", Morphs, "singles", 2.5),
    Source("flite-singles", _flite, "singles", 0.6, warp=0.5),
    Source("espeak-singles", _espeak, "singles", 1.0),
    Source("joe-singles", Joe, "singles", 0.3, warp=0.7),
    Source("hibari-words", Hibari, "words", 2.4, warp=0.7),
    Source("flite-words", _flite, "words", 2.4, warp=0.5),
    Source("joe-read", Joe, "read", 7.0, warp=0.7),
    Source("joe-words", Joe, "words", 2.4, warp=0.7),
    Source("hibari-snippets", Hibari, "snippets", 1.0, warp=0.7),
    Source("flite-snippets", _flite, "snippets", 1.0, warp=0.5),
    Source("joe-snippets", Joe, "snippets", 0.7, warp=0.7),
    Source("espeak-snippets", _espeak, "snippets", 1.0),
    Source("espeak-read", _espeak, "read", 5.0),
    Source("espeak-words", partial(Espeak, ESPEAK_TRAIN[::9]), "words", 1.0),
    Source("espeak-more-words", partial(Espeak, ESPEAK_TRAIN[4::9]), "words", 2.0),
    Source("festival-read", _slt, "read", 0.7, warp=0.5),
    Source("festival-words", _slt, "words", 0.3, warp=0.5),
    Source("morph-telephone", _persons, "telephone", 2.5, takes=1),
    Source("flite-telephone", _flite, "telephone", 1.2, warp=0.5),
    Source("hibari-telephone", Hibari, "telephone", 0.8, warp=0.7),
    Source("espeak-telephone", partial(Espeak, ESPEAK_TRAIN[2::9]), "telephone", 1.2),
    Source("joe-telephone", Joe, "telephone", 0.8, warp=0.7),
    Source("kal16-read", _kal, "read", 2.5, warp=0.6),
    Source("kal16-words", _kal, "words", 1.6, warp=0.6),
    Source("kal16-singles", _kal, "singles", 0.3, warp=0.6),
    Source("kal16-telephone", _kal, "telephone", 0.6, warp=0.6),
    Source("kal-festival-read", _kal_diphone, "read", 1.2, warp=0.6),
    Source("kal-festival-words", _kal_diphone, "words", 1.6, warp=0.6),
    Source("kal-festival-singles", _kal_diphone, "singles", 0.3, warp=0.6),
    Source("kal-festival-telephone", _kal_diphone, "telephone", 0.6, warp=0.6),
    Source("rhvoice-read", _rhvoice, "read", 7.0, warp=0.5),
    Source("rhvoice-words", _rhvoice, "words", 2.4, warp=0.5),
    Source("rhvoice-telephone", _rhvoice, "telephone", 1.2, warp=0.5),
    Source("pico-read", _pico, "read", 9, "test", 100),
    Source("pico-words", _pico, "words", 9, "test", 150),
    Source("ked-read", _ked, "read", 9, "test", 150),
    Source("ked-words", _ked, "words", 9, "test", 150),
    Source("espeak-test-read", partial(Espeak, ESPEAK_TEST), "read", 9, "test", 150),
    Source("espeak-test-words", partial(Espeak, ESPEAK_TEST), "words", 9, "test", 150),
    Source("kumo-read", _kumo, "read", 9, "test", 100, takes=1),
    Source("kumo-words", _kumo, "words", 9, "test", 100, takes=1),
    Source("kokoro-words", partial(Kokoro, ("mixture1", "mixture2", "mixture3")), "words", 0.8, takes=1),
    Source("kokoro-read", _mixtures, "read", 6.0),
    Source("voices-words", _kokoro, "words", 3.0, warp=0.5),
    Source("voices-singles", _kokoro, "singles", 1.0, warp=0.5),
    Source("voices-telephone", _kokoro, "telephone", 1.2, warp=0.5),
    Source("voices-snippets", _kokoro, "snippets", 1.0, warp=0.5),
    Source("voices-read", _kokoro, "read", 6.0, warp=0.5),
    Source("voices-test-words", _kokoro_test, "words", 9, "test", 60),
    Source("voices-test-read", _kokoro_test, "read", 9, "test", 40),
)
