"""How many threads NumPy's matrix products may use; the compiled kernels have their own `set_threads`."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

from qwenaudio_np.errors import UsageError, value_of

MAX_THREADS = 1024
_ENVIRONMENT = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")
_limits: list[Any] = []  # threadpoolctl undoes its limit when the object dies


def check_threads(threads: int | None) -> None:
    """Raise UsageError unless `threads` is None (all cores) or a sensible count."""
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
        raise UsageError(f"--threads is {value_of(threads)}, expected a whole number from 1 to {MAX_THREADS}")


def limit_blas(threads: int | None) -> None:
    """Limit NumPy's products: by the environment where NumPy is not loaded yet (BLAS reads it once), else by threadpoolctl if installed."""
    check_threads(threads)
    if threads is None:
        return
    if "numpy" not in sys.modules:
        for name in _ENVIRONMENT:
            os.environ[name] = str(threads)
    elif importlib.util.find_spec("threadpoolctl"):
        import threadpoolctl

        _limits[:] = [threadpoolctl.threadpool_limits(threads)]
