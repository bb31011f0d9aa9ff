"""Clips on disk: for each source a folder of FLAC files and a list of their labels, one line of JSON per clip."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16000  # samples per second of every clip
FULL_SCALE = 32768  # one step of a 16-bit file is 1 / FULL_SCALE
TRANSCRIBED = ("read", "words")  # kinds of clips whose words are known: prose, and strings, single words, pieces of sentences


class ClipStore:
    """The clips of one source: `clips/<source>/<00000>.flac` under `data`, and their labels in `clips/<source>.jsonl`.

    The label of a clip is appended after its file is complete, so a run that was killed loses at most the clip it was writing,
    and `missing` says what is left to do.
    """

    def __init__(self, data: Path, source: str) -> None:
        self.data = data
        self.source = source
        self.labels = data / "clips" / f"{source}.jsonl"
        (data / "clips" / source).mkdir(parents=True, exist_ok=True)
        if self.labels.exists():
            drop_unfinished_line(self.labels)
        self.done = {int(Path(clip["file"]).stem) for clip in read_labels(self.labels)} if self.labels.exists() else set()

    def missing(self, count: int) -> Iterator[int]:
        """Those of the indexes 0 .. count - 1 that have no clip yet."""
        return (index for index in range(count) if index not in self.done)

    def write(self, index: int, samples: np.ndarray, *, kind: str, text: str, voice: str, split: str, **more: Any) -> None:
        """Write clip `index`: samples [n] at 16 kHz within -1 .. 1, rounded to 16 bits; `more` are further labels.

        Raises ValueError if a sample lies outside -1 .. 1: it would be clipped.
        """
        peak = float(np.max(np.abs(samples), initial=0.0))
        if not peak <= 1:
            raise ValueError(f"{self.source} {index}: the loudest sample is {peak:.3f}, at most 1 can be stored; lower the gain")
        file = f"clips/{self.source}/{index:05d}.flac"
        # 1.0 itself has no 16-bit number: it becomes the largest one, 32767.
        whole = np.minimum(np.rint(samples * FULL_SCALE), FULL_SCALE - 1).astype(np.int16)
        soundfile.write(self.data / file, whole, RATE, format="FLAC", subtype="PCM_16")
        seconds = round(len(samples) / RATE, 3)
        label = {"file": file, "kind": kind, "text": text, "words": None, "voice": voice, "split": split, "seconds": seconds} | more
        with self.labels.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(label, ensure_ascii=False) + "\n")
        self.done.add(index)


def drop_unfinished_line(path: Path) -> None:
    """Cut off what follows the last end of line: the rest of a label whose writing was interrupted."""
    written = path.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        with path.open("r+b") as stream:
            stream.truncate(whole)


def read_labels(path: Path) -> list[dict[str, Any]]:
    """The labels in a source's list, as dictionaries; a last line that is still being written is left out."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def read_clip(path: Path) -> np.ndarray:
    """The samples [n] of a clip, float64 within -1 .. 1. Raises ValueError if it is not 16 kHz mono."""
    samples, rate = soundfile.read(path, dtype="float64")
    if rate != RATE or samples.ndim != 1:
        raise ValueError(f"{path}: {rate} Hz with shape {samples.shape}, expected mono at {RATE} Hz; synthesise it again")
    return samples


def data_argument(description: str | None) -> Path:
    """The folder named by `--data` on the command line, for the scripts that take nothing else."""
    return Path(data_parser(description).parse_args().data)


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a script that writes clips: `--data`, to which it may add more."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=Path("build/demo"), help="where clips are kept (default: %(default)s)")
    return parser
