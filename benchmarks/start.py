"""From typing the command to its text, with a tiny model: the first run ever, which compiles the kernels, and every later one.

    python benchmarks/start.py [--threads N] [--json]

Each run is a process of its own; the cache of compiled code begins empty, in a temporary folder. Validation: all runs answer alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure

from qwenaudio_np.convert.random_checkpoint import write_random_checkpoint

CLIP = Path(__file__).resolve().parent.parent / "examples" / "ill_disposed.flac"
REQUEST = ("--input", str(CLIP), "--prompt", "what does the person say?", "--max-new-tokens", "8")


def main() -> None:
    """Print a row for the first run and one for those after it."""
    options = measure.arguments(__doc__ or "")
    threads = ("--threads", str(options.threads)) if options.threads else ()
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(f"{folder}/tiny")
        command = [sys.executable, "-m", "qwenaudio_np", "--model", f"{folder}/tiny", *REQUEST, *threads]
        measure.report(lines(command, f"{folder}/cache", options.repeats), options.json)


def lines(command: list[str], cache: str, repeats: int) -> list[dict[str, Any]]:
    """Seconds of the first run, and the median of `repeats` later ones."""
    text, first = timed(command, cache)
    if not text.strip():
        raise SystemExit("the first run answered nothing; not timed")
    later = []
    for _ in range(repeats):
        again, seconds = timed(command, cache)
        if again != text:
            raise SystemExit(f"the first run answered {text!r}, a later one {again!r}; not timed")
        later.append(seconds)
    return [{"run": "first ever, compiling included", "seconds": first}, {"run": "second", "seconds": statistics.median(later)}]


def timed(command: list[str], cache: str) -> tuple[str, float]:
    """What a command prints, and the seconds until it has ended."""
    begin = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "XDG_CACHE_HOME": cache}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout, time.perf_counter() - begin


if __name__ == "__main__":
    main()
