"""The two convolutions in front of the encoder, as one matrix product over (tap, in) pairs."""

from __future__ import annotations

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.ops import Array, Weight

from .linear import linear


def conv1d(x: Array, weight: Weight, bias: Weight, stride: int) -> Array:
    """Width 3, one zero of padding on both sides.  x [in, frames], weight [out, in, 3], bias [out] -> [out, ceil(frames / stride)]

    The windows take the place of the weights in `linear`, so that the result needs no turning round.
    """
    if x.dtype != np.float32:
        return ops.conv1d(x, weight, bias, stride)  # float64 is for truth, not for speed
    padded = np.pad(x.T, ((1, 1), (0, 0)))  # [1 + frames + 1, in]
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=0)[::stride]  # [out_frames, in, 3]
    # Tap by tap, not channel by channel: then a window is copied in one piece.
    rows = windows.transpose(0, 2, 1).reshape(len(windows), -1)  # [out_frames, 3 * in]
    taps = ops.widen(weight, x.dtype).transpose(0, 2, 1).reshape(len(weight), -1)  # [out, 3 * in]
    y = linear(taps, rows)  # [out, out_frames]
    y += ops.widen(bias, x.dtype)[:, None]
    return y
