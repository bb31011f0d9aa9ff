"""What a run of demo.train teaches: how much of each kind of sound it hears, how much each loss counts, what is held, and what stays still.

The defaults are those of a run from Whisper's encoder. A run that goes on from a model, to learn more of one thing and lose nothing of the
others, is given its own by the command line: demo/HISTORY.md has the commands of the embedded model's last runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from demo.clip_store import TRANSCRIBED
from demo.examples import Entry
from demo.kinds import KINDS
from demo.twin import first_parts
from qwenaudio_np.options import whole_number

SPEECH = (*TRANSCRIBED, "heard")  # the kinds; of the last nobody told the words (people.py)
# How much of the sound is of each kind, beside the others; to speech come the joined clips. The last four are the scenes.
SHARES = {"read": 0.49, "words": 0.3, "heard": 0.2, "free": 0.0, "note": 0.14, **dict.fromkeys(KINDS, 0.0175)}
LOW, LOW_TIMES = 48, 3.0  # notes below this pitch come so many times as often as others: they are hardest to tell
WEIGHTS = {
    **{"answer": 1.0, "listening": 0.3, "ctc": 0.6, "place": 0.15, "note": 0.3, "kind": 0.3},  # on real clips
    **{"reading": 0.5, "following": 0.15, "imagining": 1.0},  # on imagined ones
    **{"vectors": 10.0, "answers": 2.0},  # of a model that it is to be like
}


@dataclass(frozen=True)
class Curriculum:
    """What is heard, what of it is learned, and by which parts."""

    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)
    weights: Mapping[str, float] = field(default_factory=lambda: WEIGHTS)
    held: tuple[str, ...] = ("heard",)  # kinds of speech whose words are not taught: a model is only held to what it answers (likeness.py)
    free: tuple[str, ...] = ()  # how the names of sources of speech begin that are taught whatever their kind, and held to nothing
    still: int = 0  # blocks of the encoder, from the first on, that do not learn, nor do the convolutions then
    decoder_still: bool = False  # whether only the encoder learns: to say more clearly what the decoder can read already

    @property
    def imagines(self) -> bool:
        """Whether text that nobody read aloud is taught: it stands in for prose."""
        return "read" not in self.held

    def is_free(self, entry: Entry) -> bool:
        """Whether a clip is of a free source."""
        return entry["source"].startswith(self.free) if self.free else False

    def teaches(self, entry: Entry) -> bool:
        """Whether the right answers to a clip are taught."""
        return self.is_free(entry) or entry["kind"] not in self.held

    def share_of(self, entry: Entry) -> str:
        """A clip's name in SHARES: "free" if its source is, else its kind, and of a scene the answer."""
        return "free" if self.is_free(entry) else str(entry["text"] if entry["kind"] == "scene" else entry["kind"])

    def odds(self, entries: list[Entry]) -> np.ndarray:
        """How likely each clip is drawn [clips], so that each kind has its share of the sound."""
        kinds = np.array([self.share_of(entry) for entry in entries])
        often = np.array([LOW_TIMES if entry["kind"] == "note" and entry["pitch"] < LOW else 1.0 for entry in entries])
        sound = often * np.array([entry["samples"] for entry in entries], float)
        totals = {kind: max(sound[kinds == kind].sum(), 1.0) for kind in self.shares}
        found = often * sum(share * (kinds == kind) / totals[kind] for kind, share in self.shares.items())
        return np.asarray(found / np.sum(found))

    def let_learn(self, twin: nn.Module, settling: bool) -> None:
        """Mark the parameters that learn in this step: none while a run settles, else all but those that stay still."""
        still = first_parts(self.still) if self.still else ()
        for name, parameter in twin.named_parameters():
            stays = name.startswith(still) or (self.decoder_still and not name.startswith("audio."))
            parameter.requires_grad_(not settling and not stays)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that make a curriculum other than the default."""
    parts = {"shares": (SHARES, "of the sound, beside the others"), "weights": (WEIGHTS, "how much the losses count")}
    for name, (default, meaning) in parts.items():
        known = " ".join(f"{key}={value:g}" for key, value in default.items())
        parser.add_argument(f"--{name}", nargs="+", type=number_of(default), default=[], metavar="NAME=NUMBER", help=f"{meaning} ({known})")
    meaning = "speech whose words are not taught; MODEL of --like holds its answers"
    parser.add_argument("--hold", nargs="+", choices=SPEECH, default=[], help=meaning)
    meaning = "sources of speech whose names begin so: taught, whatever their kind, and not held to MODEL; their share: free"
    parser.add_argument("--free", nargs="+", default=[], metavar="NAME", help=meaning)
    meaning = "the convolutions and so many blocks of the encoder stay still (default: all learn)"
    parser.add_argument("--still", type=whole_number(0), default=0, metavar="BLOCKS", help=meaning)
    parser.add_argument("--decoder-still", action="store_true", help="only the encoder learns")


def number_of(known: Iterable[str]) -> Callable[[str], tuple[str, float]]:
    """What reads one NAME=NUMBER whose name is known."""

    def read(text: str) -> tuple[str, float]:
        name, _, number = text.partition("=")
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0.0 <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r}: expected {name}=NUMBER, a number from 0 on")
        return name, value

    return read


def from_arguments(arguments: argparse.Namespace, alone: bool = False) -> Curriculum:
    """The curriculum of a command line that add_arguments made; `alone`, without a model to be held to, untold speech is not heard."""
    held = tuple(kind for kind in SPEECH if kind in ("heard", *arguments.hold))
    shares = SHARES | ({"heard": 0.0} if alone else {}) | dict(arguments.shares)
    return Curriculum(shares, WEIGHTS | dict(arguments.weights), held, tuple(arguments.free), arguments.still, arguments.decoder_still)
