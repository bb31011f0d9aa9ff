"""`attention` at the shapes of the published model: encoder on 30 s, causal prefill, one decoding step.

    python benchmarks/attention.py [--threads N] [--json]
"""

from __future__ import annotations

from typing import Any

import measure
import numpy as np

from qwenaudio_np import kernels, ops
from qwenaudio_np.ceilings import PAUSE, median_seconds
from qwenaudio_np.threads import limit_blas

# name: heads, queries, keys, head_dim, causal
SHAPES = {
    "encoder, 30 s": (20, 1500, 1500, 64, False),
    "prefill, 171": (32, 171, 171, 128, True),
    "prefill, 2048": (32, 2048, 2048, 128, True),
    "decode, 2048 cached": (32, 1, 2048, 128, True),
}
TOLERANCE = 5e-5  # two float32 softmaxes over 2048 keys: each is about 1e-5 from the float64 one


def main() -> None:
    """Print a row per shape: the kernel, and ops.py in NumPy, on the same arrays."""
    options = measure.arguments(__doc__ or "")
    limit_blas(options.threads)
    kernels.set_threads(options.threads)
    measure.report([one_line(name, *shape, options.repeats) for name, shape in SHAPES.items()], options.json)


def one_line(name: str, heads: int, queries: int, keys: int, head_dim: int, causal: bool, repeats: int) -> dict[str, Any]:
    """Validate, then time both."""
    rng = np.random.default_rng(0)
    q = rng.standard_normal((heads, queries, head_dim), np.float32)
    k, v = (rng.standard_normal((heads, keys, head_dim), np.float32) for _ in range(2))
    error = measure.validate(name, kernels.attention(q, k, v, causal), ops.attention(q, k, v, causal), TOLERANCE)
    fast = median_seconds(lambda: kernels.attention(q, k, v, causal), repeats, PAUSE)
    plain = median_seconds(lambda: ops.attention(q, k, v, causal), repeats, PAUSE)
    pairs = heads * (queries * keys - (queries * (queries - 1) // 2 if causal else 0))  # (query, key) pairs that see each other
    return {
        "shape": name,
        "ms": fast * 1e3,
        "Gop/s": 4 * pairs * head_dim / fast / 1e9,
        "ops.py ms": plain * 1e3,
        "times faster than ops.py": plain / fast,
        "error/RMS": error,
        "threads": kernels.get_threads(),
    }


if __name__ == "__main__":
    main()
