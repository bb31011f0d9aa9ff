"""The two convolutions in front of the encoder, as one matrix product over (in, tap) pairs."""

from __future__ import annotations

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.ops import Array, Weight

from . import parallel
from .arrays import empty, readable, require_shape
from .linear import linear

TAPS = 3
FRAMES = 16  # windows per piece of work


def conv1d(x: Array, weight: Weight, bias: Weight, stride: int) -> Array:
    """Width 3, one zero of padding on both sides.  x [in, frames], weight [out, in, 3], bias [out] -> [out, ceil(frames / stride)]

    Computed frame by frame: the result is a view of an array [frames, out], and an x that is such a view is taken as it lies. Raises
    ValueError for shapes that do not fit.
    """
    if x.dtype != np.float32 or not x.size:
        return ops.conv1d(x, weight, bias, stride)  # float64 is for truth, not for speed; of nothing there is nothing to gain
    channels, length = x.shape
    require_shape("weight", weight, (len(weight), channels, TAPS))
    frames = -(-length // stride)
    windows = empty(frames, TAPS * channels)
    parallel.run(_windows, (readable(x.T), channels, stride, windows.reshape(-1)), -(-frames // FRAMES), FRAMES * windows.shape[1])
    rows = (weight if isinstance(weight, np.ndarray) else ops.widen(weight, x.dtype)).reshape(len(weight), -1)  # [out, in * 3]
    return linear(windows, rows, bias).T  # [out, frames]


@parallel.shared
def _windows(piece: int, x: Array, channels: int, stride: int, windows: Array) -> None:
    """x [length, channels] -> FRAMES rows of windows [frames, channels * TAPS], in the order of a weight's columns; zeros past the ends."""
    width, length = channels * TAPS, len(x) // channels
    for frame in range(piece * FRAMES, min((piece + 1) * FRAMES, len(windows) // width)):
        for tap in range(TAPS):
            row, to = frame * stride + tap - 1, frame * width + tap
            if 0 <= row < length:
                for channel in range(channels):
                    windows[to + channel * TAPS] = x[row * channels + channel]
            else:
                for channel in range(channels):
                    windows[to + channel * TAPS] = np.float32(0)
