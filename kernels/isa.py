"""Which instructions multiply small whole numbers: chosen by the CPU's features, or forced.

All give the same bits: sums of whole numbers are exact, and what follows in floating point is the same code for all.
"""

from __future__ import annotations

from llvmlite import binding
from numba import config

from qwenaudio_np.errors import BackendError, shown

# From the fastest to the one that every CPU has; what LLVM calls the features that each needs.
ISAS = {"avx512vnni": ("avx512f", "avx512bw", "avx512vnni"), "avx2": ("avx2",), "plain": ()}
# The tiles of avx512vnni, with its one instruction, vpdpbusd, taken apart into what every CPU has: its tests run on all machines.
# Slow, and never chosen by itself.
EMULATED = "avx512vnni-emulated"


def available() -> tuple[str, ...]:
    """Those that code compiled here may use, the fastest first."""
    found = features()
    return tuple(isa for isa, needs in ISAS.items() if all(feature in found for feature in needs))


def features() -> set[str]:
    """What Numba compiles for, by LLVM's names: this CPU's features (without AVX, where NUMBA_ENABLE_AVX forbids it, as Numba does on some
    old CPUs by itself), or what the settings NUMBA_CPU_NAME, NUMBA_CPU_FEATURES say."""
    if config.CPU_FEATURES is not None:
        return {part[1:] for part in config.CPU_FEATURES.split(",") if part.startswith("+")}
    if config.CPU_NAME is not None:
        return set()
    found = {name for name, there in binding.get_host_cpu_features().items() if there}
    return found if config.ENABLE_AVX else {name for name in found if not name.startswith("avx")}


_chosen = available()[0]


def set_isa(isa: str | None) -> None:
    """Use these instructions from now on: a key of ISAS, or EMULATED; None: the fastest. BackendError if this CPU has not got them."""
    global _chosen
    if isa not in (None, EMULATED, *available()):
        raise BackendError(f"instructions {shown(isa)} cannot be used on this CPU, expected one of: {', '.join(available())}")
    _chosen = isa or available()[0]


def get_isa() -> str:
    """What is used."""
    return _chosen
