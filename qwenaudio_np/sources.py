"""Whatever a caller calls a clip -> Clip, its warnings passed on."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from qwenaudio_np.audio import SAMPLE_RATE, Clip, clip_from_array, load_clip
from qwenaudio_np.errors import UsageError, shown


class AudioWarning(UserWarning):
    """Something about a recording that its user should know: it was cut, it is oddly loud."""


def as_clip(source: Any) -> Clip:
    """A Clip (returned as it is), a path, an open binary file, or an array at 16 kHz, [samples] or [samples, channels]."""
    if isinstance(source, Clip):
        return source
    if isinstance(source, np.ndarray):
        clip = clip_from_array(source, SAMPLE_RATE)
    elif isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        clip = load_clip(source)
    else:
        raise UsageError(f"audio holds a {shown(type(source).__name__)}, expected a path, an array at 16 kHz, a binary file or a Clip")
    for line in clip.warnings:
        warnings.warn(line, AudioWarning, stacklevel=3)
    return clip
