"""Whatever a caller calls a clip -> Clip, its warnings passed on."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from qwenaudio_np.audio import SAMPLE_RATE, Clip, clip_from_array, load_clip
from qwenaudio_np.errors import UsageError, shown

# How to give what other libraries return: (array, rate), or a dictionary of both.
WITH_RATE = "of samples at another rate, qwenaudio_np.audio.clip_from_array(samples, rate) makes a Clip"


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
        kind = shown(type(source).__name__)
        raise UsageError(f"audio holds a {kind}, expected a path, an array at 16 kHz, a binary file or a Clip; {WITH_RATE}")
    for line in clip.warnings:
        warnings.warn(line, AudioWarning, stacklevel=3)
    return clip
