"""Muon: momentum whose matrices are made orthogonal before each step (Jordan et al. 2024), with AdamW's step length (Liu et al. 2025).

A matrix's gradient is mostly a few large directions, those of what is common; the step that Muon takes is as long in all of them, so
that what is rare, such as the spelling of a rare word, is learned in fewer steps. This one takes matrices of one shape together, and
computes in float32 unless it is told otherwise: CPUs without instructions for bfloat16 do it slowly.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic polynomial whose iteration draws singular values to about 1 (0.7 to 1.2)
ITERATIONS = 5
RMS = 0.2  # what AdamW's steps have in the mean, per number


class Muon(torch.optim.Optimizer):
    """`groups` of parameters [rows, columns]; `parts`: how many matrices lie in a parameter, one below the other."""

    def __init__(self, groups: list[dict[str, Any]], parts: dict[nn.Parameter, int], momentum: float, weight_decay: float) -> None:
        self.parts = parts
        self.precision = torch.float32  # of what makes them orthogonal; bfloat16 is enough, where the processor multiplies it
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step of all matrices that have a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            steps: list[tuple[nn.Parameter, tuple[int, int], int, bool]] = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                sum_ = state.setdefault("sum", torch.zeros_like(parameter))
                sum_.lerp_(parameter.grad, 1 - group["momentum"])
                matrices = parameter.grad.lerp(sum_, group["momentum"]).unflatten(0, (self.parts[parameter], -1))  # Nesterov's
                high = matrices.shape[1] > matrices.shape[2]
                shape = tuple(sorted(matrices.shape[1:]))
                shapes[shape].extend((matrices.transpose(1, 2) if high else matrices).unbind(0))
                steps.append((parameter, shape, len(matrices), high))
            orthogonal = {shape: iter(orthogonalised(torch.stack(matrices), self.precision)) for shape, matrices in shapes.items()}
            for parameter, shape, count, high in steps:
                made = torch.stack([next(orthogonal[shape]) for _ in range(count)])
                update = (made.transpose(1, 2) if high else made).flatten(0, 1)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * RMS * shape[1] ** 0.5)


def orthogonalised(matrices: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """[n, a, b] with a <= b -> the same with singular values of about 1, by Newton-Schulz' iteration."""
    a, b, c = COEFFICIENTS
    x = (matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).to(precision)
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()
