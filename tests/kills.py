"""A conversion that is killed (SIGKILL) at random moments never leaves half a folder, and the next run ends well.

    python -m tests.kills [--count 50] [--seed 1]

A moment is right before the n-th call of a C function, system calls among them; half of the moments are among the last calls, where
files are renamed. By turns of chance the destination was free or held another checkpoint before. Each time: the destination is as it
was, or whole; then a second run makes exactly the bytes of a run that nobody killed, and leaves nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.convert.verify import verify_checkpoint
from tests.cli_tools import GOLDEN, environment
from tests.conversion_tools import SMALL, everything, left_over

SOURCE = GOLDEN / "short_context_bf16" / "checkpoint"
LAST_CALLS = 150

KILLED = """
import os, signal, sys
from qwenaudio_np.convert.converter import convert_checkpoint
calls, limit = 0, int(sys.argv[3])
TIMED = ("threading.py", "thread.py", "_base.py", "_weakrefset.py")  # how often these call something depends on the other thread

def count(frame, event, argument):
    global calls
    if event == "c_call" and not frame.f_code.co_filename.endswith(TIMED):
        calls += 1
        if calls == limit:  # the number is the same in every run
            os.kill(os.getpid(), signal.SIGKILL)

sys.setprofile(count)
convert_checkpoint(sys.argv[1], sys.argv[2], shard_size=int(sys.argv[4]), force=True)
sys.setprofile(None)
print(calls)
"""


def killed_run(source: Path, out: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Convert in a process that kills itself right before its `limit`-th call of a C function (0: never; it prints how many there are)."""
    words = [sys.executable, "-c", KILLED, str(source), str(out), str(limit), str(SMALL)]
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120)


def kill_at_random_moments(source: Path, folder: Path, count: int, seed: int) -> dict[str, int]:
    """Kill `count` conversions. Returns how often each state of the destination was found afterwards."""
    rng, out, found = random.Random(seed), folder / "out", {"absent": 0, "as before": 0, "whole": 0, "work to resume": 0}
    calls = int(killed_run(source, folder / "whole", 0).stdout)
    whole = everything(folder / "whole")
    for i in range(count):
        if rng.randrange(2):
            convert_checkpoint(source, out, weights="float32", force=True)
        else:
            shutil.rmtree(out, ignore_errors=True)
        before = everything(out) if out.exists() else None
        limit = rng.randint(1, calls) if i % 2 else calls - rng.randrange(LAST_CALLS)
        assert killed_run(source, out, limit).returncode == -signal.SIGKILL, limit
        after = everything(out) if out.exists() else None
        assert after in (None, before, whole), limit
        found["absent" if after is None else "whole" if after == whole else "as before"] += 1
        found["work to resume"] += any((folder / ".out.converting" / "new").glob("*.safetensors"))
        convert_checkpoint(source, out, shard_size=SMALL, force=True)
        assert everything(out) == whole and left_over(folder) == [], limit
        assert verify_checkpoint(out, source).ok, limit
    return found


def main() -> None:
    """Print one line; an AssertionError names the moment."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__, formatter_class=form)
    parser.add_argument("--count", type=int, default=50, metavar="N", help="how many conversions to kill (default 50)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, other moments (default 1)")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_at_random_moments(SOURCE, Path(folder), options.count, options.seed)
    states = ", ".join(f"{state} {times}" for state, times in found.items())
    print(f"{options.count} conversions killed, each then run again and verified; destination after the kill: {states}")
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
