"""What the tests of the compiled kernels share."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT is set: there is no compiled code")


def part(name: str) -> Any:
    """A module of the kernels' package (its functions have the same names, so attributes do not do)."""
    return importlib.import_module(f"qwenaudio_np.kernels.{name}")


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def recompiled(patch: pytest.MonkeyPatch, module: Any, **constants: Any) -> None:
    """Other constants for a module of kernels, and functions compiled with them: compiled code has the constants built in."""
    for name, value in constants.items():
        patch.setattr(module, name, value)
    patch.setattr(part("compile_cache"), "_FOLDER", None)  # what is kept there has other constants
    patch.setattr(part("compile_cache"), "_names", {})
    for name, function in list(vars(module).items()):
        if isinstance(function, numba.core.registry.CPUDispatcher) and function.py_func.__module__ == module.__name__:
            piece = getattr(function, "piece", None)
            again = part("parallel").shared(piece) if piece else numba.njit(nogil=True, error_model="numpy")(function.py_func)
            patch.setattr(module, name, again)
