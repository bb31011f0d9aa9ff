"""GELU and gated SiLU in float32: loops without branches or calls, which LLVM turns into vector code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.ops import Array

from . import parallel
from .arrays import empty, readable
from .compile_cache import inlined
from .simd import exp_nonpositive, fma

PIECE = 1 << 11  # values per piece of work
COST = 16  # one value costs about as much as so many multiplications

# Phi(x) - 1/2 = x (C0 + C1 x^2 + ...): the Taylor series, good to 6e-9 for |x| < 1.
_C = tuple(np.float32((-1) ** n / (2**n * math.factorial(n) * (2 * n + 1)) / math.sqrt(2 * math.pi)) for n in range(8))
# erfc(z) = t (T0 + T1 t + ...) exp(-z^2), t = 1 / (1 + P z), for z >= 0.7. The eight numbers are a fit of our own, equal
# deviations both ways of the quotient with the true erfc, which is within 9e-8.
_P = np.float32(0.56)
_T = tuple(np.float32(c) for c in (0.315994279, 0.314787705, 0.277915161, 0.106282956, 0.227176871, -0.374085906, 0.132389313))
_HALF, _ONE, _ROOT_HALF = np.float32(0.5), np.float32(1), np.float32(math.sqrt(0.5))


def gelu(x: Array) -> Array:
    """x * Phi(x), Phi the normal distribution; any shape.  The exact form with erf, not the tanh form."""
    if x.dtype != np.float32:
        return ops.gelu(x)  # float64 is for truth, not for speed
    return _elementwise(_gelu, x)


def gated_silu(value: Array, gate: Array) -> Array:
    """value * silu(gate), [length, inner] both."""
    if value.dtype != np.float32 or gate.dtype != np.float32 or value.shape != gate.shape:
        return ops.gated_silu(value, gate)  # as above
    return _elementwise(_gated_silu, value, gate)


def _elementwise(function: Any, *arrays: Array) -> Array:
    """The arrays have one shape. Where they lie column by column, so does the result: nothing is turned round."""
    if not arrays[0].flags.c_contiguous and all(array.flags.f_contiguous for array in arrays):
        return _elementwise(function, *(array.T for array in arrays)).T
    y = empty(*arrays[0].shape)
    parallel.run(function, (*map(readable, arrays), y.reshape(-1)), -(-y.size // PIECE), PIECE * COST)
    return y


@inlined
def _phi(x: float) -> float:
    """The normal distribution, within 1.1e-7, and in the left tail relatively within 2e-6 (1 + erf(x) cancels there)."""
    square, z = x * x, abs(x) * _ROOT_HALF
    near = fma(fma(fma(fma(_C[7], square, _C[6]), square, _C[5]), square, _C[4]), square, _C[3])
    near = fma(fma(fma(near, square, _C[2]), square, _C[1]), square, _C[0])
    t = _ONE / (_ONE + _P * z)
    far = fma(fma(fma(_T[6], t, _T[5]), t, _T[4]), t, _T[3])
    far = _HALF * t * fma(fma(fma(far, t, _T[2]), t, _T[1]), t, _T[0]) * exp_nonpositive(-(z * z))
    beyond = far if x < 0 else _ONE - far
    return fma(x, near, _HALF) if abs(x) < _ONE else beyond


@parallel.shared
def _gelu(piece: int, x: Array, y: Array) -> None:
    for i in range(piece * PIECE, min((piece + 1) * PIECE, len(y))):
        y[i] = x[i] * _phi(x[i])


@parallel.shared
def _gated_silu(piece: int, value: Array, gate: Array, y: Array) -> None:
    for i in range(piece * PIECE, min((piece + 1) * PIECE, len(y))):
        small = exp_nonpositive(-abs(gate[i]))  # of -|x|, so that nothing overflows
        y[i] = value[i] * (gate[i] * (_ONE if gate[i] >= 0 else small) / (_ONE + small))
