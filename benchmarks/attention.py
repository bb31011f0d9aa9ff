"""`attention` at the shapes of the published model: encoder on 30 s, causal prefill, one decoding step.

    python benchmarks/attention.py [--threads N] [--json]

Beside ops.py in NumPy stands PyTorch's own attention in float32 with as many threads (the extra `peers`). One row behind a cache reads
keys and values, and is related to plain memory reading; many rows compute, and are related to NumPy's float32 product of large matrices.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import measure
import numpy as np

from qwenaudio_np import kernels, ops
from qwenaudio_np.ceilings import PAUSE, Product, Reading
from qwenaudio_np.threads import limit_blas

# name: heads, queries, keys, head_dim, causal
SHAPES = {
    "encoder, 30 s": (20, 1500, 1500, 64, False),
    "prefill, 171": (32, 171, 171, 128, True),
    "prefill, 2048": (32, 2048, 2048, 128, True),
    "decode, 2048 cached": (32, 1, 2048, 128, True),
}
LARGE = (1024, 1024, 1024)  # a product at which NumPy is at its best
CALLS = 3  # of each in a turn
TOLERANCE = 5e-5  # two float32 softmaxes over 2048 keys: each is about 1e-5 from the float64 one


def main() -> None:
    """Print a row per shape: the kernel, ops.py in NumPy, and PyTorch where installed, on the same arrays."""
    options = measure.arguments(__doc__ or "")
    limit_blas(options.threads)
    kernels.set_threads(options.threads)
    torch = measure.peer("torch", "PyTorch")
    if torch:
        torch.set_num_threads(kernels.get_threads())
    measure.report([one_line(name, shape, options.repeats, torch) for name, shape in SHAPES.items()], options.json)


def one_line(name: str, shape: tuple[int, int, int, int, bool], repeats: int, torch: Any | None) -> dict[str, Any]:
    """Validate, then time each, and measure the ceiling that binds."""
    heads, queries, keys, head_dim, causal = shape
    rng = np.random.default_rng(0)
    q = rng.standard_normal((heads, queries, head_dim), np.float32)
    k, v = (rng.standard_normal((heads, keys, head_dim), np.float32) for _ in range(2))
    want = ops.attention(q, k, v, causal)
    error = measure.validate(name, kernels.attention(q, k, v, causal), want, TOLERANCE)
    bound = Reading(kernels.get_threads()) if queries == 1 else Product(*LARGE)
    turns: dict[str, Callable[[], object]] = {
        "ours": lambda: kernels.attention(q, k, v, causal),
        "ops.py": lambda: ops.attention(q, k, v, causal),
        "ceiling": bound,
    }
    if torch:
        turns["PyTorch"] = theirs = torch_attention(torch, q, k, v, causal)
        measure.validate(f"{name}, PyTorch", theirs(), want, TOLERANCE)
    rounds = measure.in_turn(turns, repeats, PAUSE, CALLS)
    ours, others = rounds["ours"], rounds.get("PyTorch", [])
    pairs = heads * (queries * keys - (queries * (queries - 1) // 2 if causal else 0))  # (query, key) pairs that see each other
    operations = 4 * pairs * head_dim
    over = (k.nbytes + v.nbytes if queries == 1 else operations) / bound.amount * measure.ratio(rounds["ceiling"], ours)
    return {
        "shape": name,
        "ms": statistics.median(ours) * 1e3,
        "Gop/s": operations / statistics.median(ours) / 1e9,
        "over memory reading": over if queries == 1 else float("nan"),
        "over NumPy product": over if queries > 1 else float("nan"),
        "ops.py ms": statistics.median(rounds["ops.py"]) * 1e3,
        "times faster than ops.py": measure.ratio(rounds["ops.py"], ours),
        "PyTorch ms": statistics.median(others) * 1e3 if others else float("nan"),
        "times faster than PyTorch": measure.ratio(others, ours),
        "error/RMS": error,
        "threads": kernels.get_threads(),
    }


def torch_attention(torch: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> Callable[[], np.ndarray]:
    """The same in PyTorch, as its users write it: a batch of one, and the result in the form that the next product takes.

    Its own causal mask means "the first queries of all"; a single query behind a cache sees everything, and needs none.
    """
    several = [torch.from_numpy(array)[None] for array in (q, k, v)]

    def attend() -> np.ndarray:
        out = torch.nn.functional.scaled_dot_product_attention(*several, is_causal=causal and q.shape[1] > 1)
        return out[0].transpose(0, 1).reshape(q.shape[1], -1).numpy()

    return attend


if __name__ == "__main__":
    main()
