"""What happens to clean synthetic clips before the model hears them: rooms, microphones, noise, and parts that are covered up.

All of a step's clips at once, on whatever device they are; what is drawn comes from PyTorch's generator.
"""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from demo.clip_store import RATE
from demo.padding import own_places

LONGEST_ROOM = 0.6  # seconds until its sound is 60 dB below
COLOUR_POINTS = 8  # of a microphone's response, from 0 to 8 kHz


def augment(waves: Tensor, lengths: Tensor, kept: Tensor) -> Tensor:
    """waves [rows, samples], of which `lengths` [rows] are real, as microphones might have heard them; 0 behind each one's end.

    Rows that are `kept` [rows] keep their loudness, every second one its sound as well, and get no more than faint noise now and then.
    """
    size = next_fast_len(waves.shape[1] + round(LONGEST_ROOM * RATE), real=True)
    inside = own_places(lengths, waves.shape[1])
    heard = torch.fft.irfft(torch.fft.rfft(waves, size) * response(len(waves), size, waves.device), size)[:, : waves.shape[1]] * inside
    as_loud = heard * (loudness_of(waves, lengths) / loudness_of(heard, lengths).clamp(min=1e-9))[:, None]
    same = torch.where(torch.rand(len(waves), 1, device=waves.device) < 0.5, waves, as_loud)
    heard = torch.where(kept[:, None], same, levelled(heard))
    quietest, loudest = 50.0, torch.where(kept, 25.0, 10.0)
    below = quietest - (quietest - loudest) * torch.rand(len(waves), device=waves.device)
    noisy = torch.rand(len(waves), device=waves.device) < torch.where(kept, 0.3, 0.5)
    loudness = loudness_of(heard, lengths) * 10.0 ** (-below / 20.0) * noisy
    return (heard + loudness[:, None] * noise(len(waves), size, waves.device)[:, : waves.shape[1]]).clamp(-1.0, 1.0) * inside


def loudness_of(waves: Tensor, lengths: Tensor) -> Tensor:
    """[rows]: root mean square over each one's own length."""
    return (waves.square().sum(1) / lengths).sqrt()


def response(rows: int, size: int, device: torch.device) -> Tensor:
    """[rows, size // 2 + 1], complex: what rooms, microphones and narrow lines make of each frequency."""
    frequencies = torch.linspace(0.0, RATE / 2, size // 2 + 1, device=device)
    draw = torch.rand(4, rows, 1, device=device)
    total = torch.fft.rfft(rooms(rows, device), size)
    total = torch.where(draw[0] < 0.35, total, torch.ones_like(total))
    total = torch.where(draw[1] < 0.65, total * colours(rows, frequencies), total)
    edge = 2800.0 + 2700.0 * torch.rand(rows, 1, device=device)
    low = torch.where(draw[3] < 0.5, 100.0 + 250.0 * torch.rand(rows, 1, device=device), 0.0)
    line = (1.0 + (frequencies / edge) ** 12).rsqrt() * (1.0 + (low / frequencies.clamp(min=1.0)) ** 6).rsqrt()  # Butterworth's
    return torch.where(draw[2] < 0.25, total * line, total)


def rooms(rows: int, device: torch.device) -> Tensor:
    """[rows, samples]: the direct sound and a tail of noise that decays by 60 dB in 0.1 to LONGEST_ROOM s."""
    times = torch.arange(round(LONGEST_ROOM * RATE), device=device) / RATE
    length = 0.1 + (LONGEST_ROOM - 0.1) * torch.rand(rows, 1, device=device)
    tail = torch.randn(rows, len(times), device=device) * 10.0 ** (-3.0 * times / length) * (times < length)
    tail *= (0.1 + 0.7 * torch.rand(rows, 1, device=device)) / tail.square().sum(1, keepdim=True).sqrt()
    tail[:, 0] = 1.0
    return tail


def colours(rows: int, frequencies: Tensor) -> Tensor:
    """[rows, frequencies]: a microphone's smooth response, within about 9 dB up and down."""
    decibels = 4.5 * torch.randn(rows, COLOUR_POINTS, device=frequencies.device)
    place = frequencies / (RATE / 2) * (COLOUR_POINTS - 1)
    left = place.long().clamp(max=COLOUR_POINTS - 2)
    return 10.0 ** (torch.lerp(decibels[:, left], decibels[:, left + 1], place - left) / 20.0)


def levelled(waves: Tensor) -> Tensor:
    """A peak of 0.04 to 0.95 each; what is nearly silent stays as it is."""
    peak = waves.abs().amax(1, keepdim=True)
    wanted = 10.0 ** (-1.4 + 1.38 * torch.rand_like(peak))
    return torch.where(peak > 0.01, waves * wanted / peak.clamp(min=0.01), waves)


def noise(rows: int, size: int, device: torch.device) -> Tensor:
    """[rows, size] with a mean square of about 1 and a power of 1/f^0 to 1/f^2."""
    bins = torch.arange(size // 2 + 1, device=device).clamp(min=size // 400 + 1)
    shaped = torch.randn(rows, len(bins), 2, device=device) * (bins ** -torch.rand(rows, 1, device=device))[..., None]
    sound = torch.fft.irfft(torch.view_as_complex(shaped), size)
    return sound / sound.square().mean(1, keepdim=True).sqrt()


def covered(mel: Tensor, frames: Tensor, kept: Tensor) -> Tensor:
    """mel [rows, 80, frames] with up to two short times and two bands of each row as low as silence (SpecAugment, Park et al. 2019)."""
    rows, device = len(mel), mel.device
    count, most = 2, torch.tensor([32.0, 12.0], device=device)  # spans of each kind, and the longest of frames and of bands
    width = (torch.rand(2, count, rows, device=device) * most[:, None, None]) * (torch.rand(2, count, rows, device=device) < 0.5)
    start = torch.rand(2, count, rows, device=device) * (
        torch.stack([frames.float(), torch.full_like(frames, 80).float()])[:, None] - width
    )
    long_enough = ~kept & (frames > 150)
    hidden = torch.zeros_like(mel, dtype=torch.bool)
    for axis, places in enumerate((torch.arange(mel.shape[2], device=device), torch.arange(mel.shape[1], device=device))):
        for first, wide in zip(start[axis], width[axis], strict=True):
            span = (places >= first[:, None]) & (places < (first + wide)[:, None]) & long_enough[:, None]
            hidden |= span[:, None, :] if axis == 0 else span[:, :, None]
    inside = own_places(frames, mel.shape[2])
    silence = mel.masked_fill(~inside[:, None], torch.inf).amin((1, 2), keepdim=True)
    return torch.where(hidden & inside[:, None], silence, mel)
