"""Find when each word of the packed clips is said: `python -m demo.times --data build/demo`, once training is half way.

Only some synthesisers tell their words' times. For the rest, the twin's own CTC scores are aligned with the known transcript, and the
frames at which a word's tokens are emitted are turned into times by two lines, fitted to the clips whose times are known exactly.
Result: packs/SOURCE.times.jsonl, a clip's file and its words in each line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demo import sounds, words
from demo.clip_store import FULL_SCALE, TRANSCRIBED, read_labels
from demo.ctc_alignment import Lines, Spans, emissions, word_tokens
from demo.examples import GRID, Entry
from demo.front_end import log_mel
from demo.losses import ctc_scores
from demo.train import Training
from demo.twin import Twin
from qwenaudio_np.audio import position_count
from qwenaudio_np.tokenizer import Tokenizer

EXACT = ("festival-read", "festival-words", "hibari-words", "flite-words")  # sources with known times
AT_MOST = 600  # clips of each that the lines are fitted to


def main() -> None:
    """Fit the lines, then write the times of every source that has none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--twin", type=Path, help="default: twin.pt of the data folder")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run, tokenizer = Training(Twin(), device), words.load(arguments.data)
    path = arguments.twin or arguments.data / "twin.pt"
    if not path.exists():
        raise SystemExit(f"no {path}: run python -m demo.train first")
    run.load(path)
    entries, heard = sounds.labels(arguments.data), sounds.read(arguments.data, torch.device("cpu"))
    lines = fit(run, tokenizer, entries, heard)
    for source in sorted({entry["source"] for entry in entries}):
        mine = [entry for entry in entries if entry["source"] == source and not entry["words"] and entry["kind"] in TRANSCRIBED]
        if mine:
            write(
                arguments.data / "packs" / f"{source}{sounds.TIMES}", [align(run, tokenizer, entry, heard) for entry in mine], lines, mine
            )


Aligned = tuple[Spans, int]  # the frames of a clip's words, and how many frames it has


def fit(run: Training, tokenizer: Tokenizer, entries: list[Entry], heard: Tensor) -> Lines:
    """The lines with the least squares over clips of EXACT; prints how far they are off."""
    inputs: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    offsets: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for source in EXACT:
        clips = [entry for entry in entries if entry["source"] == source and entry["told"]]
        for entry in clips[:AT_MOST]:
            spans, frames = align(run, tokenizer, entry, heard)
            times = np.array([[start, end] for _, start, end in entry["words"]]) / GRID
            for side, (emitted, inputs_) in enumerate(zip((spans.first, spans.last), spans.inputs(frames), strict=True)):
                inputs[side].append(inputs_)
                offsets[side].append(times[:, side] - emitted)
    lines = []
    for name, x, y in zip(("starts", "ends"), map(np.concatenate, inputs), map(np.concatenate, offsets), strict=True):
        good = np.abs(y - np.median(y)) < 0.5 / GRID  # the others were aligned wrongly
        line = np.linalg.lstsq(x[good].astype(float), y[good], rcond=None)[0]
        print(f"{name}: {len(y)} words, {1000 * GRID * np.abs(y - x @ line).mean():.0f} ms off in the mean, offsets {np.round(line, 2)}")
        lines.append(line)
    return Lines(*lines)


def write(path: Path, aligned: list[Aligned], lines: Lines, entries: list[Entry]) -> None:
    """The times of one source's clips."""
    found = read_labels(path) if path.exists() else []
    for entry, (spans, frames) in zip(entries, aligned, strict=True):
        rounded = np.round(lines.times(spans, frames), 3).tolist()
        words_ = [[word, start, end] for word, (start, end) in zip(entry["text"].split(), rounded, strict=True)]
        found.append({"file": entry["file"], "words": words_})
    path.with_suffix(".new").write_text("".join(json.dumps(line) + "\n" for line in found), "utf-8")
    path.with_suffix(".new").replace(path)
    print(f"{path.name}: {len(found)} clips", flush=True)


@torch.inference_mode()
def align(run: Training, tokenizer: Tokenizer, entry: Entry, heard: Tensor) -> Aligned:
    """Where the clip's words are emitted."""
    wave = heard[entry["start"] : entry["start"] + entry["samples"]].to(run.device).float() / FULL_SCALE
    positions = torch.tensor([position_count(len(wave))], device=run.device)
    vectors = run.twin.audio(log_mel(wave[None], 2 * positions), positions)
    scores = ctc_scores(run.twin, run.blank, vectors)[0].cpu().numpy()
    ids, of_word = word_tokens(tokenizer, entry["text"])
    frames = emissions(scores, ids)
    starts = np.searchsorted(of_word, np.arange(of_word[-1] + 1))
    ends = np.append(starts[1:], len(ids)) - 1
    return Spans(frames[starts, 0], frames[ends, 1]), len(scores)


if __name__ == "__main__":
    main()
