"""Which places of a padded batch are a row's own."""

from __future__ import annotations

import torch
from torch import Tensor


def own_places(lengths: Tensor, longest: int) -> Tensor:
    """lengths [rows] -> [rows, longest]: True at the first lengths[k] places of row k, False in its padding."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
