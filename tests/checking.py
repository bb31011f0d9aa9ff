"""What every test of an operation shares: the one comparison with its twin, and the numbers it is fed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import naive

STORED = ["float32", "float64", "float16", "bfloat16"]
TINY = 1e-37  # results below the smallest normal float32 may be flushed to zero
# Marks for a whole file: both number types; and no word from NumPy where NaN is what a test is about.
BOTH_FLOATS = [
    pytest.mark.parametrize("dtype", [np.float32, np.float64]),
    pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero):RuntimeWarning"),
]


def check(ops: Any, name: str, *args: Any, **options: Any) -> None:
    """Operation `name` gives the type of its first float array, the shape and, within the derived bound, the values of its twin."""
    result = getattr(ops, name)(*args, **options)
    dtype = options["dtype"] if name == "embedding" else args[0].dtype
    # Twins get activations in float64 and weights as they are stored.
    activations = {"attention": 3, "rotary": 3, "gated_silu": 2, "embedding": 0}.get(name, 1)
    wide = [a.astype(np.float64) if i < activations else a for i, a in enumerate(args)]
    expected, off = getattr(naive, name)(*wide, **{key: value for key, value in options.items() if key != "dtype"})
    assert result.dtype == dtype
    assert result.shape == expected.shape
    excess = abs(result.astype(np.float64) - expected) - (off * float(np.finfo(dtype).eps) + TINY)
    assert not result.size or excess.max() <= 0, f"{name}: {excess.max():.3g} past the bound"


def random(dtype: Any, *shape: int, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def stored(kind: str, *shape: int, seed: int = 1) -> NDArray[Any]:
    """Random weights as a checkpoint holds them."""
    values = random(np.float32, *shape, seed=seed)
    if kind == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(kind)


def same(result: NDArray[Any], expected: Any, dtype: Any) -> None:
    """Equal but for a rounding or two, NaN where NaN is expected."""
    assert result.dtype == dtype
    np.testing.assert_allclose(result, np.array(expected, np.float64), rtol=4 * np.finfo(dtype).eps, atol=TINY)
