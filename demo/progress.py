"""What a training loop needs besides its losses: a run that may be stopped, its learning rate, and what it prints now and then."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SAVE_EVERY = 60.0  # seconds
WARM_UP, LEAST_RATE = 0.02, 0.01  # share of the time until the learning rate is largest, and of the largest at the end


@dataclass
class Run:
    """Everything that has to survive a stop: modules and their optimisers by name, and how far they have come."""

    parts: dict[str, Any]  # each with state_dict and load_state_dict; one or more are optimisers
    step: int = 0
    _before: float = 0.0  # minutes that earlier processes took
    _began: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)

    @property
    def minutes(self) -> float:
        """How long the run has taken, in all its processes."""
        return self._before + (time.monotonic() - self._began) / 60

    def save(self, path: Path) -> None:
        """Written whole or not at all."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save(state | {"step": self.step, "minutes": self.minutes}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
        self._saved = time.monotonic()

    def save_now_and_then(self, path: Path) -> None:
        """Once in SAVE_EVERY."""
        if time.monotonic() - self._saved > SAVE_EVERY:
            self.save(path)

    def load(self, path: Path) -> None:
        """Back to the last save, where there is one."""
        if path.exists():
            state = torch.load(path, weights_only=True, map_location="cpu")
            if missing := sorted(self.parts.keys() - state.keys()):
                raise SystemExit(
                    f"{path} lacks {', '.join(missing)}: an earlier form of the recipe wrote it; give another path, or remove it"
                )
            try:
                for name, part in self.parts.items():
                    part.load_state_dict(state[name])
            except (RuntimeError, ValueError) as error:
                raise SystemExit(
                    f"{path} does not fit: an earlier form of the recipe wrote it; give another path, or remove it"
                ) from error
            self.step, self._before, self._began = state["step"], state["minutes"], time.monotonic()
            print(f"goes on from {path}: step {self.step}, {self._before:.1f} min", flush=True)

    def learn(self, loss: Tensor, rate: float, modules: list[nn.Module]) -> None:
        """One step of every optimiser down the gradient of the loss, whose norm over the modules is cut at 1.

        A group of parameters may have some `times` the rate.
        """
        optimisers = [part for part in self.parts.values() if isinstance(part, torch.optim.Optimizer)]
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("times", 1.0)
            optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([parameter for module in modules for parameter in module.parameters()], 1.0)
        for optimiser in optimisers:
            optimiser.step()
        self.step += 1


def schedule(share: float) -> float:
    """The learning rate's share of the largest, by the share of the time that is over: up a line, then down a cosine to LEAST_RATE."""
    if share < WARM_UP:
        return share / WARM_UP
    past = min(1.0, (share - WARM_UP) / (1 - WARM_UP))
    return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * past))


class Means:
    """The means of named numbers since they were last shown."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def add(self, numbers: dict[str, Tensor]) -> None:
        """One step's numbers, which stay where they are until they are shown; a step may leave some out."""
        for name, number in numbers.items():
            self.values.setdefault(name, []).append(number.detach())

    def shown(self) -> str:
        """All means in one line; begins again."""
        line = ", ".join(f"{name} {torch.stack(values).mean().item():.3f}" for name, values in self.values.items())
        self.values = {}
        return line
