"""Fuzzing of everything that reads files of strangers.

    python -m tests.fuzz [--count 100000] [--seed 1] [--kinds header pickle ...] [--again]

Every input is a pure function of (kind, seed, number). One that fails is kept in tests/fuzz/found/, where the ordinary tests read
it from then on; `--again` reads only those.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported: each thread takes address space

from tests.fuzz.mutate import made
from tests.fuzz.survey import Outcome, survey
from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).resolve().parent / "found"


def main() -> int:
    """Print one line for each kind; status 1 if an input failed, or if all inputs of a kind had the same fate."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="inputs of each kind (default 100000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, other inputs (default 1)")
    parser.add_argument("--kinds", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="KIND", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--again", action="store_true", help="read only what has failed before")
    parser.add_argument("--found", type=Path, default=FOUND, metavar="DIR", help="where failing inputs are kept")
    options = parser.parse_args()
    good = True
    for kind in options.kinds:
        kept = [path.read_bytes() for path in sorted(options.found.glob(f"{kind}-*"))]
        good &= _told(kind, "kept before", survey(TARGETS[kind], kept.__getitem__, len(kept)), 0.0)
        if options.again:
            continue
        begin = time.perf_counter()
        outcome = survey(TARGETS[kind], partial(made, kind, options.seed), options.count)
        good &= _told(kind, f"seed {options.seed}", outcome, time.perf_counter() - begin)
        for number in outcome.failures:
            data = made(kind, options.seed, number)
            options.found.mkdir(exist_ok=True)
            (options.found / f"{kind}-{sha256(data).hexdigest()[:16]}").write_bytes(data)
        if not 0 < outcome.read < outcome.count:
            print(f"{kind}: {outcome.read} of {outcome.count} inputs were read, expected some and not all; these inputs show nothing")
            good = False
    return 0 if good else 1


def _told(kind: str, which: str, outcome: Outcome, seconds: float) -> bool:
    for number, reason in outcome.failures.items():
        print(f"{kind}, {which}, number {number}: {reason}")
    if outcome.count:
        print(
            f"{kind}, {which}: {outcome.count} inputs, {outcome.read} read, {outcome.refused} refused, {len(outcome.failures)} failed; "
            f"slowest {1000 * outcome.slowest:.0f} ms, at most {outcome.most_bytes / 1e6:.0f} MB, {seconds:.0f} s in all",
            flush=True,
        )
    return not outcome.failures


if __name__ == "__main__":
    sys.exit(main())
