"""Numba versions of the operations of `qwenaudio_np.ops`: same names, same signatures, float32.

float64 goes to ops.py itself: it is there to be right, and NumPy's products are fast. Results are bit-identical for any number of
threads; CPUs with other registers may round the last bit of an attention differently. Nothing is compiled before it is first called.
"""

from __future__ import annotations

# These only move numbers, or are too small a part of the work, for compiling them to pay.
from qwenaudio_np.ops import average_pool, embedding, rotary

from .activations import gated_silu, gelu
from .attention import attention
from .compile_cache import announce_compiling
from .conv1d import conv1d
from .decoder_block import decoder_blocks
from .isa import get_isa, set_isa
from .linear import linear, linears
from .norms import layer_norm, rms_norm
from .parallel import get_threads, set_threads
from .quantise import quantise

__all__ = [
    "announce_compiling",
    "attention",
    "average_pool",
    "conv1d",
    "decoder_blocks",
    "embedding",
    "gated_silu",
    "gelu",
    "get_isa",
    "get_threads",
    "layer_norm",
    "linear",
    "linears",
    "quantise",
    "rms_norm",
    "rotary",
    "set_isa",
    "set_threads",
]
