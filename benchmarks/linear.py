"""`linear` at the shapes of the published model: one row (decoding) against memory reading, many rows against NumPy's product.

    python benchmarks/linear.py [--threads N] [--json]
"""

from __future__ import annotations

import statistics
from copy import deepcopy
from typing import Any

import measure
import numpy as np

from qwenaudio_np import kernels, ops
from qwenaudio_np.bfloat16 import to_bfloat16
from qwenaudio_np.ceilings import PAUSE, Product, Reading
from qwenaudio_np.ops import Weight
from qwenaudio_np.threads import limit_blas

INNER, OUT = 4096, 11008  # w1 and w2 of the decoder
COPIES = 8  # decoding reads another weight each time; one alone would stay in the cache of some machines
ROWS = (1, 12, 171, 1500)  # decoding, a short prompt, the prompt of a 6 s clip, the encoder on 30 s
TOLERANCE = 1e-5


def main() -> None:
    """Print a row per weight type and number of rows."""
    options = measure.arguments(__doc__ or "")
    limit_blas(options.threads)
    kernels.set_threads(options.threads)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((OUT, INNER), np.float32) * np.float32(0.02)
    stored = {
        "float32": weight,
        "float16": weight.astype(np.float16),
        "bfloat16": to_bfloat16(weight),
        "int8": kernels.quantise(weight, 8),
        "int4": kernels.quantise(weight, 4),
    }
    lines = []
    for rows in ROWS:
        ceiling = Product(rows, INNER, OUT) if rows > 1 else Reading(kernels.get_threads())
        x = rng.standard_normal((rows, INNER), np.float32)
        lines += [one_line(name, w, x, ceiling, options.repeats) for name, w in stored.items()]
    measure.report(lines, options.json)


def one_line(name: str, weight: Weight, x: np.ndarray, ceiling: Product | Reading, repeats: int) -> dict[str, Any]:
    """Validate, time, and relate to the ceiling that binds: memory for one row, arithmetic for many."""
    error = measure.validate(name, kernels.linear(x, weight), ops.linear(x, weight), TOLERANCE)
    weights = [deepcopy(weight) for _ in range(COPIES if len(x) == 1 else 1)]
    rounds = measure.in_turn({"ours": lambda: [kernels.linear(x, w) for w in weights], "ceiling": ceiling}, repeats, PAUSE)
    took = statistics.median(rounds["ours"]) / len(weights)
    operations = 2 * len(x) * OUT * INNER
    amount = weight.nbytes if isinstance(ceiling, Reading) else operations
    over = len(weights) * amount / ceiling.amount * measure.ratio(rounds["ceiling"], rounds["ours"])
    return {
        "weight": name,
        "rows": len(x),
        "ms": took * 1e3,
        "Gop/s": operations / took / 1e9,
        "GB/s": weight.nbytes / took / 1e9,
        "over memory reading": over if len(x) == 1 else float("nan"),
        "over NumPy product": over if len(x) > 1 else float("nan"),
        "error/RMS": error,
        "threads": kernels.get_threads(),
    }


if __name__ == "__main__":
    main()
