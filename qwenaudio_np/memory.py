"""How much memory a run needs and how much there is, so that "not enough" is said before loading and not by the kernel's killer.

An allocation of more than the machine has often succeeds and ends the process only when it is touched. So the decision
is made from what the system says about itself, in bytes, the smallest of: free memory, control group limits (containers),
and the address space limit (ulimit -v). Where the system says nothing (macOS, Windows) nothing is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from qwenaudio_np.config import AudioConfig, ModelConfig, TextConfig
from qwenaudio_np.errors import ResourceError
from qwenaudio_np.ops import ROWS

GIGABYTE = 1e9
LISTED_FLOAT = 32  # bytes of one Python float in the list that the reference `erf` goes through
INTERPRETER = 300_000_000  # Python, NumPy, compiled kernels, the vocabulary


def needed_bytes(
    config: ModelConfig,
    weight_bytes: int,
    positions: int,
    dtype: DTypeLike = np.float32,
    kv: DTypeLike | None = None,
    rows: int | None = None,
) -> int:
    """Estimate for one request of `positions` positions, prompt and answer together, computed in `dtype`; keys and values kept as `kv`,
    None: as `dtype`. `rows`: how many of them go through the blocks at once, those of the prompt; None: all.

    Weights count whole although they are mapped: a model that does not fit is read from disk again for every token.
    """
    itemsize = np.dtype(dtype).itemsize
    encoder = _encoder_bytes(config.audio, itemsize) if config.audio else 0
    # Encoder and decoder do not work at the same time, so the larger of the two counts.
    working = max(encoder, _decoder_bytes(config.text, positions if rows is None else rows, itemsize))
    return weight_bytes + cache_bytes(config.text, positions, np.dtype(dtype if kv is None else kv).itemsize) + working + INTERPRETER


def cache_bytes(text: TextConfig, positions: int, itemsize: int) -> int:
    """Keys and values of all layers, [layers, 2, positions, hidden]: 1 MiB per position for the published model in float32."""
    return 2 * text.num_hidden_layers * text.hidden_size * positions * itemsize


def _decoder_bytes(text: TextConfig, rows: int, itemsize: int) -> int:
    """Arrays alive at once inside one block, whichever half needs more, the logits of one row, and widened weight rows."""
    stream = 3 * rows * text.hidden_size  # x, its norm, the sum
    attention = 5 * rows * text.hidden_size + 4 * rows * rows  # qkv and rotations; scores of one head
    feed_forward = 6 * rows * text.ff_size
    widened = 2 * ROWS * max(text.hidden_size, text.ff_size)
    return itemsize * (stream + max(attention, feed_forward) + widened + 4 * text.vocab_size)


def _encoder_bytes(audio: AudioConfig, itemsize: int) -> int:
    """One full clip inside one block; the GELU of the reference holds its values once as Python floats."""
    inner = audio.n_ctx * 4 * audio.n_state
    attention = 9 * audio.n_ctx * audio.n_state + 4 * audio.n_ctx**2
    return max(itemsize * attention, inner * (4 * itemsize + LISTED_FLOAT + 8))


def require_memory(needed: int, available: int | None) -> None:
    """Raise ResourceError, with both numbers, if `needed` bytes exceed `available`; None means unknown and passes."""
    if available is not None and needed > available:
        raise ResourceError(
            f"not enough memory: about {needed / GIGABYTE:.1f} GB needed, {available / GIGABYTE:.1f} GB available; "
            "close other programs, raise the limit of the container or shell, use a smaller checkpoint, or go on all the same with --force"
        )


def available_bytes(system: Path = Path("/"), mapped: int = 0) -> int | None:
    """Bytes this process may still take, or None where the system does not say. `system` is the root of the file system.

    `mapped`: bytes of files that are to stay in memory. The system counts their pages as free, but the address space already as taken.
    """
    physical = (max(0, room - mapped) for room in (*_free_memory(system), *_control_groups(system)))
    return min((*physical, *_address_space(system)), default=None)


def _free_memory(system: Path) -> Iterator[int]:
    """MemAvailable of Linux: free memory and what the page cache can give back."""
    for line in _lines(system / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])


def _control_groups(system: Path) -> Iterator[int]:
    """Room left under the limit of every memory control group, version 2 or 1, from the process's own up to the root."""
    for line in _lines(system / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, files = system / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            mount, files = system / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        own = mount / path.strip().lstrip("/")
        for group in (own, *own.parents):  # a limit set higher up holds too
            yield from _room(group, *files)
            if group == mount:
                break


def _room(group: Path, limit_file: str, usage_file: str) -> Iterator[int]:
    """limit - usage, with cached file pages counted as room: the kernel gives them back, and mapped weights are such pages."""
    limit, usage = _number(group / limit_file), _number(group / usage_file)
    if limit is None or usage is None:
        return
    pairs = (line.split() for line in _lines(group / "memory.stat"))
    statistics = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    # Version 1 has both own and total_ (with children) counts; usage includes the children, so the total fits.
    cached = sum(statistics.get(f"total_{name}", statistics.get(name, 0)) for name in ("inactive_file", "active_file"))
    yield max(0, limit - max(0, usage - cached))


def _address_space(system: Path) -> Iterator[int]:
    """The soft limit of ulimit -v less what is mapped already."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    for line in _lines(system / "proc/self/status"):
        if line.startswith("VmSize:"):
            yield max(0, limit - 1024 * int(line.split()[1]))


def _number(path: Path) -> int | None:
    """The whole number in a file; None for "max" or where there is no such file."""
    for line in _lines(path):
        return int(line) if line.strip().isdigit() else None
    return None


def _lines(path: Path) -> list[str]:
    """The lines of a small system file, none where it does not exist or may not be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
