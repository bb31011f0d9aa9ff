"""How long work tells how far it is: counts of bytes as they come, turned into (so far, in all)."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int], None]  # called with the number of bytes just dealt with
Progress = Callable[[int, int], None]  # bytes so far, bytes in all


def counted(progress: Progress | None, total: int) -> Advance:
    """Turn counts of bytes just dealt with into progress(so far, in all)."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(min(done, total), total)

    return advance
