"""All packed clips in memory, and the waveforms of a step cut out of them, on whatever device training runs.

A row of a step is one clip, or a few of one source with pauses between them, each played a little faster or slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from demo.assemble import sounding
from demo.clip_store import FULL_SCALE, RATE, read_labels
from demo.pack import piece_path

TIMES = ".times.jsonl"  # end of the name of what times.py writes

Entry = dict[str, Any]


@dataclass(frozen=True)
class Cut:
    """`count` samples from `start` on, played `speed` times as fast, are heard in row `row` from sample `at` on."""

    start: int
    count: int
    speed: float
    row: int
    at: int

    @property
    def length(self) -> int:
        """Samples that are heard."""
        return int((self.count - 2) / self.speed) + 1


def labels(data: Path) -> list[Entry]:
    """Every packed clip's label, "start" counted from the first sample of the first file, with the times that times.py found.

    "told": whether the synthesiser itself told them. Raises SystemExit where nothing is packed.
    """
    found, before = [], 0
    for source, entries, pieces in packed(data):
        times = data / "packs" / (source + TIMES)
        words = {line["file"]: line["words"] for line in read_labels(times)} if times.exists() else {}
        starts = {}
        for number, path in pieces.items():
            starts[number] = before
            before += soundfile.info(path).frames
        for entry in entries:
            timed = entry["words"] or words.get(entry["file"])
            place = {"source": source, "start": starts[entry["piece"]] + entry["start"]}
            found.append(entry | place | {"words": timed, "told": bool(entry["words"])})
    if not found:
        raise SystemExit(f"no clips in {data / 'packs'}: run python -m demo.pack first")
    return found


def packed(data: Path) -> Iterator[tuple[str, list[Entry], dict[int, Path]]]:
    """Each source in order: its name, its labels as pack.py wrote them, and its files by their numbers."""
    for path in sorted((data / "packs").glob("*.jsonl")):
        if not path.name.endswith(TIMES):
            entries = read_labels(path)
            numbers = sorted({entry["piece"] for entry in entries})
            yield path.stem, entries, {number: piece_path(data, path.stem, number) for number in numbers}


def read(data: Path, device: torch.device) -> Tensor:
    """Every sample of every file, int16 [samples], in the order of `labels`."""
    paths = [path for _, _, pieces in packed(data) for path in pieces.values()]
    frames = [soundfile.info(path).frames for path in paths]
    samples, ends = torch.empty(sum(frames), dtype=torch.int16), np.cumsum(frames)

    def put(path: Path, end: int) -> None:
        wave = decoded(path)
        samples[end - len(wave) : end] = torch.from_numpy(wave)

    with ThreadPoolExecutor() as pool:  # the decoder runs without Python's lock
        list(pool.map(put, paths, ends))
    return samples.to(device)


def decoded(path: Path) -> np.ndarray:
    """A file's samples, int16. The codec may overshoot full scale, where whole numbers would begin again at the other end."""
    wave, _ = soundfile.read(path, dtype="float32")
    return np.rint(wave * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def with_silences(entries: list[Entry], sounds: Tensor) -> list[Entry]:
    """The same labels, those of strings and single words with "silences": how many samples there are before and behind what sounds."""

    def silences(entry: Entry) -> tuple[int, int]:
        first, end = sounding(sounds[entry["start"] :][: entry["samples"]].cpu().numpy() / np.float32(FULL_SCALE))
        return first, entry["samples"] - end

    return [entry | {"silences": silences(entry)} if entry["kind"] == "words" else entry for entry in entries]


def rows(sounds: Tensor, cuts: Iterable[Cut], shape: tuple[int, int]) -> Tensor:
    """The waveforms of a step, float32 [rows, samples], silent where nothing was cut; between samples, Catmull and Rom's cubic."""
    waves = torch.zeros(shape, device=sounds.device)
    cuts = list(cuts)
    total = sum(cut.length for cut in cuts)
    lengths = torch.tensor([cut.length for cut in cuts]).to(sounds.device)
    which = torch.repeat_interleave(torch.arange(len(cuts), device=sounds.device), lengths, output_size=total)
    within = torch.arange(total, device=sounds.device) - (lengths.cumsum(0) - lengths)[which]
    start, row, at = torch.tensor([(cut.start, cut.row, cut.at) for cut in cuts]).to(sounds.device).T[:, which]
    place = within * torch.tensor([cut.speed for cut in cuts], dtype=torch.float64).to(sounds.device)[which]
    whole = place.long()
    part = (place - whole).float()
    a, b, c, d = (sounds[(start + whole + step).clamp(0, len(sounds) - 1)].float() for step in (-1, 0, 1, 2))
    heard = b + 0.5 * part * (c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a)))
    waves[row, at + within] = heard / FULL_SCALE
    return waves


def seconds_of(cut: Cut, words: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """A clip's word times, where the cut is heard."""
    return [(word, cut.at / RATE + start / cut.speed, cut.at / RATE + end / cut.speed) for word, start, end in words]


def total_hours(entries: list[Entry]) -> float:
    """How long the clips are."""
    return float(np.sum([entry["samples"] for entry in entries])) / RATE / 3600
