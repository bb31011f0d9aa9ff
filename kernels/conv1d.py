"""The two convolutions in front of the encoder, as one matrix product over (in, tap) pairs."""

from __future__ import annotations

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.ops import Array, Weight

from . import parallel
from .arrays import empty, readable, require_shape
from .linear import DEPTH, ROWS, of_tiles, tiles_for

TAPS = 3


def conv1d(x: Array, weight: Weight, bias: Weight, stride: int) -> Array:
    """Width 3, one zero of padding on both sides.  x [in, frames], weight [out, in, 3], bias [out] -> [out, ceil(frames / stride)]

    Computed frame by frame: the result is a view of an array [frames, out], and an x that is such a view is taken as it lies. Raises
    ValueError for shapes that do not fit.
    """
    if x.dtype != np.float32 or not x.size or not len(weight):
        return ops.conv1d(x, weight, bias, stride)  # float64 is for truth, not for speed; of nothing there is nothing to gain
    channels, length = x.shape
    require_shape("weight", weight, (len(weight), channels, TAPS))
    require_shape("bias", bias, (len(weight),))
    frames, width = -(-length // stride), channels * TAPS
    tiles, packed = tiles_for(frames, width)
    parallel.run(_pack_windows, (readable(x.T), channels, stride, frames, packed), tiles, ROWS * width)
    y = empty(frames, len(weight))
    rows = (weight if isinstance(weight, np.ndarray) else ops.widen(weight, x.dtype)).reshape(len(weight), width)
    parallel.run(*of_tiles(packed, frames, width)(rows, readable(ops.widen(bias, x.dtype)), y))
    return y.T  # [out, frames]


@parallel.shared
def _pack_windows(tile: int, x: Array, channels: int, stride: int, frames: int, packed: Array) -> None:
    """x [length, channels] -> one tile of windows [frames, channels * TAPS], in the order of a weight's columns; zeros past the ends."""
    width, length = channels * TAPS, len(x) // channels
    tiles = len(packed) // (ROWS * width)
    for start in range(0, width, DEPTH):
        depth = min(DEPTH, width - start)
        for r in range(ROWS):
            frame, at = tile * ROWS + r, (start * tiles + tile * depth) * ROWS + r
            channel, tap = start // TAPS, start % TAPS
            for k in range(depth):
                row = frame * stride + tap - 1
                packed[at + k * ROWS] = x[row * channels + channel] if frame < frames and 0 <= row < length else np.float32(0)
                tap += 1
                if tap == TAPS:
                    channel, tap = channel + 1, 0
