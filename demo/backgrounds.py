"""What is heard behind speech in training: the noises and the music of the scenes, fainter than the speech.

All of a step's clips at once, on whatever device they are; what is drawn comes from PyTorch's generator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from demo.augment import loudness_of
from demo.batches import Batch
from demo.clip_store import FULL_SCALE

HOW_OFTEN = 0.25  # of the clips with speech
BELOW = {"noise": (4.0, 28.0), "music": (12.0, 28.0)}  # dB below the speech
SHARE_OF_NOISE = 0.75  # the rest is music


def places(entries: list[dict[str, Any]], device: torch.device) -> dict[str, Tensor]:
    """Where each noise and each piece of music is in what sounds.read returns: [sounds, 2], first sample and number of samples."""
    scenes = [entry for entry in entries if entry["kind"] == "scene"]
    spans = {kind: [(entry["start"], entry["samples"]) for entry in scenes if entry["text"] == kind] for kind in BELOW}
    return {kind: torch.tensor(found, device=device).reshape(-1, 2) for kind, found in spans.items()}


def add_backgrounds(waves: Tensor, batch: Batch, heard: Tensor, behind: dict[str, Tensor]) -> Tensor:
    """waves [rows, samples] with something behind about a quarter of the rows of speech, all along each of them, again and again."""
    rows = batch.speech[torch.rand(len(batch.speech), device=waves.device) < HOW_OFTEN]
    if not len(rows) or not all(len(spans) for spans in behind.values()):
        return waves
    noisy = torch.rand(len(rows), 1, device=waves.device) < SHARE_OF_NOISE
    drawn = {kind: spans[torch.randint(len(spans), (len(rows),), device=waves.device)] for kind, spans in behind.items()}
    start, count = torch.where(noisy, drawn["noise"], drawn["music"]).T[:, :, None]
    first = (torch.rand(len(rows), 1, device=waves.device) * count).long()
    now = torch.arange(waves.shape[1], device=waves.device)
    sounds = heard[start + (first + now) % count].float() / FULL_SCALE * (now < batch.samples[rows, None])
    least, most = (torch.where(noisy[:, 0], BELOW["noise"][k], BELOW["music"][k]) for k in (0, 1))
    below = least + (most - least) * torch.rand(len(rows), device=waves.device)
    wanted = loudness_of(waves[rows], batch.samples[rows]) * 10.0 ** (-below / 20.0)
    loudness = loudness_of(sounds, batch.samples[rows]).clamp(min=1e-4)  # a pause in a noise stays a pause
    return waves.index_add(0, rows, sounds * (wanted / loudness)[:, None])
