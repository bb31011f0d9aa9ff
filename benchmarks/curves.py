"""What a request costs against the length of its sound and of its context, for one checkpoint.

    python benchmarks/curves.py --model DIR [--weights W] [--plot FILE.png] [--json]

The plot needs matplotlib (the extra `plot`). Validation: the same as `qwenaudio-np bench`, before anything is timed.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import measure
import numpy as np

import qwenaudio_np
from qwenaudio_np.audio import SAMPLE_RATE, clip_from_array
from qwenaudio_np.bench import validate
from qwenaudio_np.ceilings import PAUSE, median_seconds
from qwenaudio_np.options import whole_number

SOUND_SECONDS = (1, 2, 5, 10, 20, 30)
CONTEXTS = (64, 256, 512, 1024, 2048, 4096)


def main() -> None:
    """Print a row per length, and draw them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--weights", metavar="W", help="float32, bfloat16, int8 or int4 (default: as stored)")
    parser.add_argument("--threads", type=whole_number(1), metavar="N", help="threads (default: all)")
    parser.add_argument("--repeats", type=whole_number(1), default=3, metavar="N", help="timed calls per figure; medians count (default 3)")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the curves")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    options = parser.parse_args()
    model = qwenaudio_np.load(options.model, weights=options.weights, threads=options.threads)
    validate(model)
    lines = encoder_lines(model, options.repeats) + context_lines(model, options.repeats)
    measure.report(lines, options.json)
    if options.plot:
        draw(lines, model.labels, options.plot)


def encoder_lines(model: qwenaudio_np.QwenAudio, repeats: int) -> list[dict[str, Any]]:
    """Seconds of the encoder per length of a clip."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(max(SOUND_SECONDS) * SAMPLE_RATE)
    lines = []
    for seconds in SOUND_SECONDS if model.config.audio else ():
        clip = clip_from_array(noise[: seconds * SAMPLE_RATE].astype(np.float32), SAMPLE_RATE)
        took = median_seconds(lambda clip=clip: model.encode_audio([clip]), repeats, PAUSE)
        lines.append({"curve": "encoder", "length": seconds, "unit": "s of sound", "seconds": took})
    return lines


def context_lines(model: qwenaudio_np.QwenAudio, repeats: int) -> list[dict[str, Any]]:
    """Seconds of a prefill per length of a prompt, and of one step behind it."""
    rng = np.random.default_rng(0)
    lines = []
    model.prefill(model.embed([0] * CONTEXTS[0]))  # not timed: it may compile
    for length in (n for n in CONTEXTS if n < model.config.text.max_position_embeddings - repeats):
        x = model.embed(rng.integers(0, model.tokenizer.n_ranks, length).tolist())
        begin = time.perf_counter()
        _, cache = model.prefill(x)
        prefill = time.perf_counter() - begin
        step = median_seconds(lambda cache=cache: model.step(0, cache), repeats, PAUSE)
        lines.append({"curve": "prefill", "length": length, "unit": "positions", "seconds": prefill})
        lines.append({"curve": "one token", "length": length, "unit": "positions before it", "seconds": step})
    return lines


def draw(lines: list[dict[str, Any]], labels: dict[str, str], path: str) -> None:
    """One panel per curve, both axes from zero: straight lines are costs in proportion."""
    from matplotlib import pyplot

    names = list(dict.fromkeys(line["curve"] for line in lines))
    figure, panels = pyplot.subplots(1, len(names), figsize=(4 * len(names), 3.2), constrained_layout=True, squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        rows = [line for line in lines if line["curve"] == name]
        panel.plot([row["length"] for row in rows], [row["seconds"] for row in rows], marker="o")
        panel.set(title=name, xlabel=rows[0]["unit"], ylabel="seconds", xlim=(0, None), ylim=(0, None))
    figure.suptitle(", ".join(f"{key} {value}" for key, value in labels.items()), fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
