"""One table: every goal for speed, size and start, what this machine gives, and the command that gave it.

    python benchmarks/table.py [--model DIR ...] [--threads N] [--repeats N] [--scratch DIR] [-o FILE.md] [--json]

--model names checkpoints of any size and type of weights; the goals for whole requests are those of the full size in int4 and bfloat16, and
others are measured against none. Without it, one of the published widths with two blocks each is made, and converted to int4. Each row
comes from a benchmark of its own process, which validates before it times; a peer that is not installed leaves its rows empty.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import goals
import measure
import numba
import numpy as np

from qwenaudio_np import kernels

HERE = Path(__file__).resolve().parent
PROGRAM = (sys.executable, "-m", "qwenaudio_np")
Row = dict[str, Any]


def main() -> None:
    """Run everything and print the table; the exit status is 1 if a benchmark failed."""
    parser = measure.parser(__doc__ or "")
    parser.add_argument("--model", nargs="+", default=[], metavar="DIR", help="checkpoints for whole requests (default: one is made)")
    parser.add_argument("--scratch", metavar="DIR", help="where it is made, 6 GB (default: the system's folder for temporary files)")
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the table to a file, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        rows = list(measured(options.model or [made(scratch)], options))
    table = markdown(rows)
    print("\n".join(json.dumps({**row, **machine()}) for row in rows) if options.json else table)
    if options.output:
        Path(options.output).write_text(table + "\n", encoding="utf-8")
    if any(row["note"].startswith("failed") for row in rows):
        raise SystemExit(1)


def measured(models: list[str], options: Namespace) -> Iterator[Row]:
    """A row for each goal: every benchmark runs once, and its goals look for what they want in what it told."""
    common = ["--repeats", str(options.repeats), *(("--threads", str(options.threads)) if options.threads else ())]
    for name, wanted in goals.OPERATIONS.items():
        yield from rows_of(wanted, ran([sys.executable, str(HERE / f"{name}.py"), *common]))
    for model in models:
        size = parameters(model)
        told = ran([sys.executable, str(HERE / "request.py"), "--model", model, *common])
        weights = told.lines[0]["weights"] if told.lines else "weights unknown"
        yield from rows_of(goals.request(weights, size), told)
        yield from rows_of(goals.decoding(weights, size), ran([*PROGRAM, "bench", "--model", model, *common]))


class Told(NamedTuple):
    """What a benchmark printed, how it ended, and what to type to run it again."""

    lines: list[dict[str, Any]]
    status: int
    command: str


def ran(command: list[str]) -> Told:
    """Run a benchmark with --json."""
    words = ["qwenaudio-np", *command[3:]] if command[:3] == list(PROGRAM) else ["python", *command[1:]]
    shown = shlex.join(words).replace(str(HERE), "benchmarks")
    print(f"running {shown}", file=sys.stderr)
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return Told(lines, done.returncode, shown)


def rows_of(wanted: list[goals.Goal], told: Told) -> Iterator[Row]:
    """What each goal finds in a benchmark's lines."""
    for goal in wanted:
        value = goal.find(told.lines)
        note = f"failed with status {told.status}" if told.status else "" if value is not None else f"no {goal.peer} here"
        row = {"what": goal.what, "least": goal.least, "aim": goal.aim, "unit": goal.unit, "measured": value, "met": goal.met(value)}
        yield {**row, "note": note, "command": told.command}


def made(scratch: str) -> str:
    """A checkpoint of the published widths with two blocks each, in int4."""
    source, target = f"{scratch}/layer", f"{scratch}/layer-int4"
    subprocess.run([*PROGRAM, "random-checkpoint", source, "--size", "layer"], check=True)
    subprocess.run([*PROGRAM, "convert", source, target, "--weights", "int4"], check=True)
    return target


def parameters(model: str) -> int:
    """How many a checkpoint has."""
    told = subprocess.run([*PROGRAM, "info", model, "--json"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return sum(json.loads(told)["parameters"].values())


def machine() -> Row:
    """What the figures are of."""
    names = [line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instructions": kernels.get_isa(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "date": datetime.date.today().isoformat(),
    }


def cpu_lines() -> list[str]:
    """What Linux says about the processor; elsewhere nothing."""
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def markdown(rows: list[Row]) -> str:
    """The table for people, with the machine above it."""
    lines = [", ".join(f"{name} {value}" for name, value in machine().items()), ""]
    lines += ["| what | at least | aim | here | meets | command |", "|---|---|---|---|---|---|"]
    for row in rows:
        here = f"{row['measured']:.3g} {row['unit']}" if row["measured"] is not None else row["note"]
        bounds = [f"{row[name]:g} {row['unit']}" if row[name] is not None else "" for name in ("least", "aim")]
        cells = [row["what"], *bounds, here, row["met"], f"`{row['command']}`"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
