"""One whole request of the command line in a process of its own: 5.9 s of speech and a question, 30 new tokens.

    python benchmarks/request.py --model DIR [--threads N] [--json]

Memory is the most that was resident at once, mapped weights that were read included. One run before the timed ones fills the page cache
and compiles. Validation: all runs answer alike, with 30 tokens.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
import soundfile

SPEECH = Path(__file__).resolve().parent.parent / "examples" / "ill_disposed.flac"
SECONDS, NEW = 5.9, 30
QUESTION = ("--prompt", "what does the person say?", "--max-new-tokens", str(NEW), "--min-new-tokens", str(NEW))


def main() -> None:
    """Print one row."""
    parser = measure.parser(__doc__ or "")
    parser.add_argument("--model", required=True, metavar="DIR", help="checkpoint folder")
    options = parser.parse_args()
    threads = ("--threads", str(options.threads)) if options.threads else ()
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(f"{folder}/clip.wav")
        command = [sys.executable, "-m", "qwenaudio_np", "--model", options.model, "--input", clip, *QUESTION, *threads, "--json"]
        measure.report([line(command, options.repeats)], options.json)


def write_clip(path: str) -> str:
    """A recording of speech, repeated up to SECONDS, as a sound file."""
    speech, rate = soundfile.read(SPEECH, dtype="float32")
    soundfile.write(path, np.resize(speech, round(SECONDS * rate)), rate)
    return path


def line(command: list[str], repeats: int) -> dict[str, Any]:
    """Medians of `repeats` runs after one that is not counted; of the memory the most."""
    first, _ = watched(command)
    runs = [watched(command) for _ in range(repeats)]
    if any(answer["token_ids"] != first["token_ids"] for answer, _ in runs) or len(first["token_ids"]) != NEW:
        raise SystemExit(f"expected the same {NEW} tokens of every run; not timed")

    def median(*stages: str) -> float:
        return statistics.median(sum(answer["timings"][stage] for stage in stages) for answer, _ in runs)

    return {
        "model": first["model"],
        "weights": first["weights"],
        "peak GB": max(peak for _, peak in runs) / 1e9,
        "load s": median("load"),
        "encoder + prefill s": median("encode", "prefill"),
        "tokens/s": statistics.median(answer["tokens_per_second"] for answer, _ in runs),
        "positions": len(first["prompt_ids"]),
    }


def watched(command: list[str]) -> tuple[dict[str, Any], int]:
    """The JSON object that a command prints, and the bytes of the most memory it had resident (or, if that is more, this process)."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    answer = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # it is gone; nobody else shall wait for it
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return json.loads(answer), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux kilobytes


if __name__ == "__main__":
    main()
