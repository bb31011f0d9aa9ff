"""A decoder for G.722 at 64 kbit/s, the wide-band telephone codec: one byte -> two samples at 16 kHz.

After ITU-T Recommendation G.722 (2012); names in capitals are the Recommendation's own. Whole numbers throughout, as there:
every `>>` rounds towards minus infinity and every sum saturates at 16 bits where the Recommendation says so.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Tables QM6 and QM2: the quantised difference signals of 6-bit and 2-bit codes, for a step of 2^15.
_QM6_MAGNITUDES = (
    24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456,
    4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136,
)  # fmt: skip
_NEGATIVE = [-value for value in _QM6_MAGNITUDES]
QM6 = np.array([-136] * 4 + _NEGATIVE[:28] + list(_QM6_MAGNITUDES) + _NEGATIVE[28:], np.int64)
QM4 = np.array(
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0], np.int64
)  # the predictors of the low band use only the upper 4 bits of its codes
QM2 = np.array([-7408, -1616, 7408, 1616], np.int64)
# How a code changes the logarithm of the step: WL by RL42 (of the upper 4 bits), WH by RH2.
LOW_STEP = np.array([-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60], np.int64)
HIGH_STEP = np.array([798, -214, 798, -214], np.int64)
# ILB: 2048 times the powers of 2 by 32nds.
ILB = np.rint(2048 * 2 ** (np.arange(32) / 32)).astype(np.int64)
# The 24 coefficients of the quadrature mirror filter are symmetric; these are the even ones, the odd ones are these reversed.
QMF = np.array([3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11], np.int64)

B, D = 7, 13  # where b1 and d1 are in a band's state


@njit(cache=True)
def _saturated(value: int) -> int:
    return max(-32768, min(32767, value))


@njit(cache=True)
def _predict(state: np.ndarray, difference: int) -> None:
    """One band's adaptive predictor, block 4 of the Recommendation: two poles and six zeros, their signs followed.

    state [19]: s, sz, a1, a2, p1, p2, r1, b1 .. b6, d1 .. d6 (of each the newest first).
    s, the prediction of the next signal, is among what this updates.
    """
    s, sz, a1, a2, p1, p2, r1 = state[0], state[1], state[2], state[3], state[4], state[5], state[6]
    reconstructed, partial = _saturated(s + difference), _saturated(sz + difference)
    # Poles (UPPOL2, UPPOL1): by the signs of the partially reconstructed signal now, one and two samples ago.
    same1, same2 = (partial < 0) == (p1 < 0), (partial < 0) == (p2 < 0)
    four = _saturated(a1 * 4)
    change = min(-four if same1 else four, 32767) >> 7
    new_a2 = max(-12288, min(12288, change + (128 if same2 else -128) + (a2 * 32512 >> 15)))
    limit = 15360 - new_a2
    new_a1 = max(-limit, min(limit, (192 if same1 else -192) + (a1 * 32640 >> 15)))
    # Zeros (UPZERO): by the signs of the differences; they stand still, but leak, while the difference is 0.
    for tap in range(6):
        step = 0 if difference == 0 else (128 if (difference < 0) == (state[D + tap] < 0) else -128)
        state[B + tap] = _saturated(step + (state[B + tap] * 32640 >> 15))
    for tap in range(5, 0, -1):
        state[D + tap] = state[D + tap - 1]
    state[D] = difference
    # FILTEZ and FILTEP: doubled first, as the Recommendation's coefficients have one bit less than its signals.
    zeros = 0
    for tap in range(6):
        zeros += state[B + tap] * _saturated(state[D + tap] * 2) >> 15
    zeros = _saturated(zeros)
    poles = _saturated((new_a1 * _saturated(reconstructed * 2) >> 15) + (new_a2 * _saturated(r1 * 2) >> 15))
    state[0], state[1], state[2], state[3] = _saturated(poles + zeros), zeros, new_a1, new_a2
    state[4], state[5], state[6] = partial, p1, reconstructed


@njit(cache=True)
def _next_step(logarithm: int, shift: int, ilb: np.ndarray) -> int:
    """SCALEL, SCALEH: the step from its logarithm (11 fraction bits)."""
    power = shift - (logarithm >> 11)
    value = ilb[(logarithm >> 6) & 31]
    return (value << -power if power < 0 else value >> power) << 2


@njit(cache=True)
def _bands(codes, qm6, qm4, qm2, low_step, high_step, ilb):  # type: ignore[no-untyped-def]
    """Sums and differences of the two bands' signals, [n + 11] each, after 11 zeros."""
    low, high = np.zeros(19, np.int64), np.zeros(19, np.int64)
    low_log, high_log, low_scale, high_scale = 0, 0, 32, 8
    sums, differences = np.zeros(len(codes) + 11, np.int64), np.zeros(len(codes) + 11, np.int64)
    for index in range(len(codes)):
        code6, code2 = codes[index] & 63, codes[index] >> 6
        low_signal = max(-16384, min(16383, low[0] + (low_scale * qm6[code6] >> 15)))
        _predict(low, low_scale * qm4[code6 >> 2] >> 15)
        low_log = max(0, min(18432, (low_log * 127 >> 7) + low_step[code6 >> 2]))
        low_scale = _next_step(low_log, 8, ilb)
        difference = high_scale * qm2[code2] >> 15
        high_signal = max(-16384, min(16383, high[0] + difference))
        _predict(high, difference)
        high_log = max(0, min(22528, (high_log * 127 >> 7) + high_step[code2]))
        high_scale = _next_step(high_log, 10, ilb)
        sums[index + 11], differences[index + 11] = low_signal + high_signal, low_signal - high_signal
    return sums, differences


def decode(data: bytes) -> np.ndarray:
    """The samples [2 * bytes] of a G.722 stream, int16 at 16 kHz."""
    codes = np.frombuffer(data, np.uint8).astype(np.int64)
    sums, differences = _bands(codes, QM6, QM4, QM2, LOW_STEP, HIGH_STEP, ILB)
    # The receiving filter: each output sample from the last twelve sums or differences of the bands.
    both = np.stack([np.convolve(differences, QMF, "valid"), np.convolve(sums, QMF[::-1], "valid")], axis=1) if data else np.zeros((0, 2))
    return np.clip(both.astype(np.int64).reshape(-1) >> 11, -32768, 32767).astype(np.int16)
