"""One interface, two implementations: `reference` (ops.py, NumPy) and `numba` (kernels/, compiled).

The network takes the chosen implementation as an argument, so that both can run side by side in one process.
A backend that cannot run is an error with advice, never a silent switch to the other one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from qwenaudio_np.errors import BackendError, UsageError, shown
from qwenaudio_np.ops import Array, Stored, Weight
from qwenaudio_np.quantised import Quantised

BACKENDS = ("reference", "numba")


class Ops(Protocol):
    """What a backend offers. Shapes and meaning: the functions of the same names in ops.py.

    It may also have `decoder_blocks`, which is `blocks` of decoder.py for one row of float32, each all at once and bit for bit: a new token
    is so little work that what lies between the operations counts.
    """

    def embedding(self, table: Weight, ids: NDArray[np.intp], dtype: np.dtype) -> Array: ...
    def linear(self, x: Array, weight: Weight, bias: Weight | None = None) -> Array: ...
    def linears(self, x: Array, *products: tuple[Weight, Weight | None]) -> tuple[Array, ...]: ...
    def conv1d(self, x: Array, weight: Weight, bias: Weight, stride: int) -> Array: ...
    def gelu(self, x: Array) -> Array: ...
    def gated_silu(self, value: Array, gate: Array) -> Array: ...
    def layer_norm(self, x: Array, weight: Weight, bias: Weight, eps: float = 1e-5) -> Array: ...
    def rms_norm(self, x: Array, weight: Weight, eps: float) -> Array: ...
    def rotary(self, x: Array, cos: Array, sin: Array) -> Array: ...
    def attention(self, q: Array, k: Stored, v: Stored, causal: bool) -> Array: ...
    def average_pool(self, x: Array) -> Array: ...
    def quantise(self, weight: Array, bits: int) -> Quantised: ...


def get(name: str, threads: int | None = None, notice: Callable[[str], object] | None = None) -> Ops:
    """The backend of that name, its kernels set to `threads` (None: all cores); `notice` gets a line when compiling begins.

    Raises UsageError for an unknown name, BackendError where it cannot run.
    """
    if name == "reference":
        return cast(Ops, importlib.import_module("qwenaudio_np.ops"))
    if name != "numba":
        raise UsageError(f"unknown backend {shown(name)}, expected one of: {', '.join(BACKENDS)}")
    kernels = compiled()
    kernels.set_threads(threads)
    kernels.announce_compiling(notice)
    return cast(Ops, kernels)


def compiled() -> Any:
    """The compiled kernels, with whatever settings they have. Raises BackendError where they cannot run."""
    try:
        return importlib.import_module("qwenaudio_np.kernels")
    except ValueError as failure:  # Numba's, of its settings
        raise BackendError(f"backend 'numba' cannot run with these settings: {failure} Look at the variables NUMBA_...") from None
    except (ImportError, OSError) as failure:  # OSError: llvmlite, where its library cannot be loaded
        why = " ".join(str(failure).split())
        where = Path(__file__).parent
        raise BackendError(
            f"backend 'numba' cannot run here ({why}); install the package (pip install -e . in a clone of it; this one was "
            f"found in {where}) or choose --backend reference"
        ) from None
