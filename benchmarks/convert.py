"""The converter: its speed beside that of the disk and of memory, and the memory it takes.

    python benchmarks/convert.py --source DIR [--weights int4] [--scratch DIR] [--json]

Runs `qwenaudio-np convert` in a process of its own and watches how much anonymous memory that holds. Validation: `verify --against`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np

PIECE = 1 << 24  # bytes written at once when the disk is measured
DISK_BYTES = 1 << 30
COMMAND = (sys.executable, "-m", "qwenaudio_np")


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, metavar="DIR", help="checkpoint to convert")
    parser.add_argument("--weights", default="int4", metavar="W", help="float32, float16, bfloat16, int8 or int4 (default int4)")
    parser.add_argument("--scratch", metavar="DIR", help="where to write (default: the system's folder for temporary files)")
    parser.add_argument("--json", action="store_true", help="a JSON line instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        target = f"{scratch}/converted"
        seconds, anonymous = watched([*COMMAND, "convert", options.source, target, "--weights", options.weights])
        subprocess.run([*COMMAND, "verify", target, "--against", options.source], check=True, stdout=subprocess.DEVNULL)
        read, written = folder_bytes(options.source), folder_bytes(target)
        line: dict[str, Any] = {
            "weights": options.weights,
            "seconds": seconds,
            "GB read": read / 1e9,
            "GB written": written / 1e9,
            "MB/s read": read / seconds / 1e6,
            "MB/s written": written / seconds / 1e6,
            "disk MB/s": disk_speed(scratch) / 1e6,
            "memory copy MB/s": copy_speed() / 1e6,
            "anonymous MB": anonymous / 1e6,
        }
    measure.report([line], options.json)


def watched(command: list[str]) -> tuple[float, int]:
    """Seconds of a command, and the most anonymous memory in bytes that it was seen to hold (Linux; looked at 20 times a second)."""
    begin = time.perf_counter()
    process = subprocess.Popen(command)
    most = 0
    while process.poll() is None:
        most = max(most, anonymous_bytes(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return time.perf_counter() - begin, most


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process, 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def folder_bytes(folder: str) -> int:
    """Bytes of the files of a folder."""
    return sum(path.stat().st_size for path in Path(folder).iterdir())


def disk_speed(folder: str) -> float:
    """Bytes per second of plain writing with an fsync at the end."""
    piece = os.urandom(PIECE)
    begin = time.perf_counter()
    with open(f"{folder}/disk", "wb", buffering=0) as stream:
        for _ in range(DISK_BYTES // PIECE):
            stream.write(piece)
        os.fsync(stream.fileno())
    return DISK_BYTES / (time.perf_counter() - begin)


def copy_speed() -> float:
    """Bytes per second of copying in memory."""
    source = np.ones(DISK_BYTES // 8, np.int64)
    target = np.empty_like(source)
    np.copyto(target, source)
    begin = time.perf_counter()
    np.copyto(target, source)
    return DISK_BYTES / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
