"""Voices as other throats would have them: frequencies moved, the pitch with them, the pace left alone (Jaitly and Hinton 2013).

A clip that is played faster has them moved too, but always by as much as its pace; and the training has few voices.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qwenaudio_np.audio import SAMPLE_RATE
from qwenaudio_np.mel import hz_to_mel, mel_to_hz

BANDS = 80
SHARE, MOST = 0.5, 1.15  # of the speech that is moved, and the largest factor, up or down
BEND = 4800.0  # Hz; above it the factor goes to 1 at the highest frequency, so that none leaves the spectrum


def other_throats(mel: Tensor, speech: Tensor) -> Tensor:
    """mel [rows, 80, frames] with the frequencies of SHARE of the rows `speech` moved; the others as they are."""
    chosen = speech[torch.rand(len(speech), device=mel.device) < SHARE]
    factors = MOST ** (2.0 * torch.rand(len(chosen), device=mel.device) - 1.0)
    return mel.index_copy(0, chosen, moved(mel[chosen], factors))


def moved(mel: Tensor, factors: Tensor) -> Tensor:
    """mel [rows, 80, frames], what was at a frequency now at its row's factor times it; between bands, a straight line."""
    places = torch.from_numpy(origins(factors.double().cpu().numpy())).to(mel)
    below = places.long().clamp(max=BANDS - 2)
    part = (places - below)[..., None]
    low, high = (mel.gather(1, (below + k)[..., None].expand_as(mel)) for k in (0, 1))
    return low + part * (high - low)


def origins(factors: np.ndarray) -> np.ndarray:
    """For each factor and each band [factors, 80], the band, whole or between two, whose sound it gets."""
    top, factor = SAMPLE_RATE / 2, factors[:, None]
    step = float(hz_to_mel(np.array(top))) / (BANDS + 1)
    centres = mel_to_hz(step * np.arange(1, BANDS + 1))
    knee = BEND * np.minimum(factor, 1.0)  # up to here the factor holds
    upper = top - (top - centres) * (top - knee / factor) / (top - knee)
    return np.clip(hz_to_mel(np.where(centres < knee, centres / factor, upper)) / step - 1.0, 0.0, BANDS - 1.0)
