"""Find when each word of the spoken clips is said: `python -m demo.times --data build/demo`, once training is half way.

Only some synthesisers tell their words' times. For the rest, the twin's own CTC scores are aligned with the known transcript, and the
frames at which a word's tokens are emitted are turned into times by two lines, fitted to the clips whose times are known exactly.
Result: features/SOURCE.times.jsonl, the words of each clip in the order of features/SOURCE.jsonl, which features.py hands out with them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from demo import words
from demo.ctc_alignment import Lines, Spans, emissions, word_tokens
from demo.examples import GRID, Entry
from demo.features import TIMES, stored_source
from demo.train import Training, ctc_scores
from qwenaudio_np.tokenizer import Tokenizer

EXACT = ("festival-read", "festival-words", "hibari-words", "flite-words")  # sources with known times
AT_MOST = 600  # clips of each that the lines are fitted to


def main() -> None:
    """Fit the lines, then write the times of every source that has none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--twin", type=Path, help="default: twin.pt of the data folder")
    arguments = parser.parse_args()
    run, tokenizer = Training(), words.load(arguments.data)
    run.load(arguments.twin or arguments.data / "twin.pt")
    lines = fit(run, tokenizer, arguments.data)
    for path in sorted((arguments.data / "features").glob("*.bin")):
        write(run, tokenizer, lines, arguments.data, path.stem)


def fit(run: Training, tokenizer: Tokenizer, data: Path) -> Lines:
    """The lines with the least squares over clips of EXACT; prints how far they are off."""
    inputs: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    offsets: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for source in EXACT:
        clips = [clip for clip in stored_source(data, source) if clip[0]["words"]]
        for entry, rows in clips[:AT_MOST]:
            spans, frames = align(run, tokenizer, entry, rows)
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


def write(run: Training, tokenizer: Tokenizer, lines: Lines, data: Path, source: str) -> None:
    """The times of one source, if its clips are speech for training; those that the synthesiser told are kept."""
    clips = list(stored_source(data, source))
    if not clips or clips[0][0]["split"] != "train" or clips[0][0]["kind"] not in ("read", "words"):
        return
    found = []
    for entry, rows in clips:
        timed = entry["words"]
        if not timed:
            spans, frames = align(run, tokenizer, entry, rows)
            rounded = np.round(lines.times(spans, frames), 3).tolist()
            timed = [[word, start, end] for word, (start, end) in zip(entry["text"].split(), rounded, strict=True)]
        found.append(json.dumps({"words": timed}))
    path = data / "features" / f"{source}{TIMES}"
    path.with_suffix(".new").write_text("\n".join(found) + "\n", "utf-8")
    path.with_suffix(".new").replace(path)
    print(f"{source}: {len(found)} clips", flush=True)


@torch.inference_mode()
def align(run: Training, tokenizer: Tokenizer, entry: Entry, rows: np.ndarray) -> tuple[Spans, int]:
    """The frames of the clip's words, and how many frames it has; rows [T, state]."""
    count = len(rows) // 2
    x = torch.from_numpy(np.array(rows[: 2 * count], np.float32))[None]
    scores = ctc_scores(run.twin, run.blank, run.twin.audio(x, torch.tensor([2 * count])))[0].numpy()
    ids, of_word = word_tokens(tokenizer, entry["text"])
    frames = emissions(scores, ids)
    starts = np.searchsorted(of_word, np.arange(of_word[-1] + 1))
    ends = np.append(starts[1:], len(ids)) - 1
    return Spans(frames[starts, 0], frames[ends, 1]), count


if __name__ == "__main__":
    main()
