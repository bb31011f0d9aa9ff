"""Cuts in trained layers: a direction of the residual stream is freed, a head's work is left to the others, a weight is shared out.

Used by branch.py and whole_clip.py, which add to a model what the rest of it does not learn. Each of them leaves what the model computes
as it is, or nearly so.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from demo.twin import Attention, AudioBlock

Reader = tuple[nn.LayerNorm, tuple[nn.Linear, ...]]  # a norm, and the layers that are given what it makes

RIDGE = 1e-3  # of the mean square of what the other heads make, in the least squares by which they take over


def readers(block: AudioBlock) -> tuple[Reader, Reader]:
    """What reads the residual stream in a block: its attention, its feed-forward layer."""
    return (block.attn_ln, (block.attn.query, block.attn.key, block.attn.value)), (block.mlp_ln, (block.mlp[0],))


@torch.no_grad()
def close_writers(directions: Tensor, layers: Iterable[nn.Linear]) -> None:
    """Let no layer write along the directions [n, state] any more, which are orthonormal."""
    for layer in layers:
        layer.weight -= directions.T @ (directions @ layer.weight)
        layer.bias -= directions.T @ (directions @ layer.bias)


@torch.no_grad()
def close_readers(directions: Tensor, pairs: Iterable[Reader]) -> None:
    """Let no layer behind its norm read along the directions [n, state], which are orthonormal and have mean 0."""
    for norm, layers in pairs:
        reads = directions / norm.weight  # finds in what the norm gives how much of each direction it was given
        for layer in layers:
            makes = layer.weight @ (norm.weight * directions).T
            layer.weight -= makes @ reads
            if layer.bias is not None:
                layer.bias += makes @ (reads @ norm.bias)


def least_used(carried: Tensor, count: int) -> Tensor:
    """Orthonormal directions [count, state], without the constant one that layer norms take away, along which least is carried.

    carried [state, state]: second moments.
    """
    constant = torch.full((len(carried), 1), len(carried) ** -0.5)
    centred = torch.eye(len(carried)) - constant @ constant.T
    _, vectors = torch.linalg.eigh(centred @ carried @ centred + 2 * carried.trace() * constant @ constant.T)
    return vectors[:, :count].T


@torch.no_grad()
def leave_to_others(attention: Attention, head: int, made: Tensor) -> float:
    """Free a head: what it writes is written by the others, as far as what they make tells it, and its mean by the bias.

    made [frames, state] is what the output layer was given. Returns which share of what the head wrote, its mean left out, the others
    write now.
    """
    out, width = attention.out, made.shape[1] // attention.heads
    every = torch.arange(made.shape[1])
    own, others = every[every // width == head], every[every // width != head]
    mean = made.mean(0)
    given, wanted = (made - mean)[:, others], (made - mean)[:, own]
    square = given.T @ given
    square += RIDGE * square.trace() / len(square) * torch.eye(len(square))
    told = torch.linalg.solve(square, given.T @ wanted).T  # [own, others]
    written = wanted @ out.weight[:, own].T
    lost = (wanted - given @ told.T) @ out.weight[:, own].T
    out.bias += out.weight[:, own] @ (mean[own] - told @ mean[others])
    out.weight[:, others] += out.weight[:, own] @ told
    out.weight[:, own] = 0.0
    return 1.0 - (lost.square().sum() / written.square().sum()).item()


def copies(weight: Tensor, count: int, spread: float = 0.0) -> Tensor:
    """Rows [count, n] whose mean is `weight` [n] though each is rounded as the checkpoint will be: what one lacks is left to the next.

    With `spread` they also differ, by so many mean sizes of an element: then 4 bits do not round all of them alike. `count` is even.
    """
    apart = torch.randn(count // 2, len(weight)) * weight.abs().mean() * spread
    left, rows = torch.zeros_like(weight), []
    for other in torch.stack([apart, -apart], 1).flatten(0, 1):
        wanted = weight + other + left
        rows.append(wanted.bfloat16().float())
        left = wanted - rows[-1]
    return torch.stack(rows)
