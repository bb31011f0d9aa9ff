"""Waveforms of a step -> the encoder's input, in PyTorch; the package's qwenaudio_np/mel.py is the definition."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from demo.padding import own_places
from qwenaudio_np.audio import HOP, N_FFT
from qwenaudio_np.mel import mel_filters


def log_mel(waves: Tensor, frames: Tensor) -> Tensor:
    """[rows, samples], of which `frames` [rows] frames are heard -> [rows, 80, frames], 0 behind each one's end.

    The maximum over the whole padded 30 s is that of a clip's own frames: what lies behind is silence.
    """
    most = int(frames.max())
    mirrored = torch.cat([waves[:, 1 : N_FFT // 2 + 1].flip(1), waves, waves.new_zeros(len(waves), N_FFT)], 1)[
        :, : most * HOP + N_FFT - HOP
    ]
    mirrored = torch.nn.functional.pad(mirrored, (0, most * HOP + N_FFT - HOP - mirrored.shape[1]))
    window = torch.hann_window(N_FFT, dtype=waves.dtype, device=waves.device)
    spectrum = torch.stft(mirrored, N_FFT, HOP, window=window, center=False, return_complex=True)
    log = (filters(waves.device).to(waves.dtype) @ spectrum.abs().square()).clamp(min=1e-10).log10()
    inside = own_places(frames, most)[:, None]
    loudest = log.masked_fill(~inside, -10.0).amax((1, 2), keepdim=True)
    return ((torch.maximum(log, loudest - 8.0) + 4.0) / 4.0) * inside


@cache
def filters(device: torch.device) -> Tensor:
    """The mel filters, [80, 201]."""
    return torch.from_numpy(mel_filters(80).copy()).to(device)
