"""The converter: its speed beside that of the disk and of memory, and the memory it takes.

    python benchmarks/convert.py --source DIR [--weights int4] [--scratch DIR] [--keep DIR] [--json]

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
    parser.add_argument("--keep", metavar="DIR", help="keep the converted checkpoint, as this folder, which must not exist yet")
    parser.add_argument("--json", action="store_true", help="a JSON line instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        target = options.keep or f"{scratch}/converted"
        seconds, anonymous = watched([*COMMAND, "convert", options.source, target, "--weights", options.weights])
        subprocess.run([*COMMAND, "verify", target, "--against", options.source], check=True, stdout=subprocess.DEVNULL)
        read, written = folder_bytes(options.source), folder_bytes(target)
        disk_write, disk_read = disk_speeds(scratch)
        line: dict[str, Any] = {
            "weights": options.weights,
            "seconds": seconds,
            "GB read": read / 1e9,
            "GB written": written / 1e9,
            "MB/s read": read / seconds / 1e6,
            "MB/s written": written / seconds / 1e6,
            "disk read MB/s": disk_read / 1e6,
            "disk write MB/s": disk_write / 1e6,
            "memory copy MB/s": copy_speed() / 1e6,
            "times the disk's time": seconds / (read / disk_read + written / disk_write),
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


def disk_speeds(folder: str) -> tuple[float, float]:
    """Bytes per second of plain writing with an fsync at the end, and of reading that back after it was dropped from memory."""
    piece = os.urandom(PIECE)
    with open(f"{folder}/disk", "w+b", buffering=0) as stream:
        begin = time.perf_counter()
        for _ in range(DISK_BYTES // PIECE):
            stream.write(piece)
        os.fsync(stream.fileno())
        written = time.perf_counter()
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        stream.seek(0)
        start = time.perf_counter()
        while stream.read(PIECE):
            pass
        return DISK_BYTES / (written - begin), DISK_BYTES / (time.perf_counter() - start)


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
