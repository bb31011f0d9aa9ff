"""The training clips in a few Vorbis files: `python -m demo.pack --data build/demo`, after demo.speech, demo.music and demo.scenes.

One hundred hours of clips become about 1 GB, which can be carried to a machine with a GPU and is read into its memory in seconds.
packs/SOURCE.NNN.ogg holds PIECE clips one after the other, with a short silence behind each; packs/SOURCE.jsonl holds the clips' labels
with "piece", "start" and "samples". What the codec takes away is one more thing that a microphone might not have heard.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from demo.clip_store import RATE, read_labels

PIECE = 200  # clips of one file
SILENCE = RATE // 25  # samples behind each clip: the codec's windows reach over their ends
COMPRESSION = 1.0  # the most that there is: about 23 kbit/s of speech
AT_ONCE = RATE  # samples handed to the encoder, whose buffers for all of a file would be on the stack

Entry = dict[str, Any]


def main() -> None:
    """Pack what is not packed yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="SOURCE", help="these sources only")
    arguments = parser.parse_args()
    sources = arguments.only or sorted(path.stem for path in (arguments.data / "clips").glob("*.jsonl"))
    if not any((arguments.data / "clips" / f"{source}.jsonl").exists() for source in sources):
        raise SystemExit(f"no clips in {arguments.data / 'clips'}: run python -m demo.speech first")
    (arguments.data / "packs").mkdir(exist_ok=True)
    jobs = [(arguments.data, source, number) for source in sources for number in missing(arguments.data, source)]
    with get_context("spawn").Pool(arguments.processes) as pool:
        for _ in pool.imap_unordered(write, jobs):
            pass
    for source in sources:
        if training_clips(arguments.data, source):
            print(f"{source}: {write_labels(arguments.data, source)} clips", flush=True)


def training_clips(data: Path, source: str) -> list[Entry]:
    """The labels of a source's clips, if they are for training."""
    return [entry for entry in read_labels(data / "clips" / f"{source}.jsonl") if entry["split"] == "train"]


def missing(data: Path, source: str) -> Iterator[int]:
    """The numbers of the files that have no list of places beside them, or one of other clips than there are by now."""
    clips = training_clips(data, source)
    for number in range(-(-len(clips) // PIECE)):
        places = piece_path(data, source, number).with_suffix(".json")
        if not places.exists() or not are_at(clips[PIECE * number :][:PIECE], json.loads(places.read_text())):
            yield number


def are_at(clips: list[Entry], places: list[tuple[str, int, int]]) -> bool:
    """Whether the places are those of these clips, by names and lengths."""
    same_names = [clip["file"] for clip in clips] == [file for file, _, _ in places]
    return same_names and all(abs(clip["seconds"] * RATE - count) < RATE / 1000 for clip, (_, _, count) in zip(clips, places, strict=True))


def piece_path(data: Path, source: str, number: int) -> Path:
    """Where a source's clips from PIECE * number on are."""
    return data / "packs" / f"{source}.{number:03d}.ogg"


def write(job: tuple[Path, str, int]) -> None:
    """One file, and its clips' names, starts and lengths beside it; these last, so that a file half written is written again."""
    data, source, number = job
    path, places, now = piece_path(data, source, number), [], 0
    with soundfile.SoundFile(path, "w", RATE, 1, "VORBIS", format="OGG", compression_level=COMPRESSION) as out:
        for entry in training_clips(data, source)[number * PIECE : (number + 1) * PIECE]:
            wave, _ = soundfile.read(data / entry["file"], dtype="int16")
            places.append([entry["file"], now, len(wave)])
            now += len(wave) + SILENCE
            for start in range(0, len(wave), AT_ONCE):
                out.write(wave[start : start + AT_ONCE])
            out.write(np.zeros(SILENCE, np.int16))
    path.with_suffix(".json").write_text(json.dumps(places))


def write_labels(data: Path, source: str) -> int:
    """packs/SOURCE.jsonl: the labels of the clips that are packed. How many."""
    entries = training_clips(data, source)
    lines = []
    for number in range(-(-len(entries) // PIECE)):
        places = piece_path(data, source, number).with_suffix(".json")
        if not places.exists():  # its clips came meanwhile
            break
        for entry, (_, start, samples) in zip(entries[number * PIECE :], json.loads(places.read_text()), strict=False):
            lines.append(json.dumps(entry | {"piece": number, "start": start, "samples": samples}))
    path = data / "packs" / f"{source}.jsonl"
    path.with_suffix(".new").write_text("\n".join(lines) + "\n", "utf-8")
    path.with_suffix(".new").replace(path)
    return len(lines)


if __name__ == "__main__":
    main()
