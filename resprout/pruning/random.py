"""Random weights go: the baseline that any criterion must beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from resprout.pruning.candidates import Alive, by_layer, flat
from resprout.pruning.magnitude import keep_largest


def uniformly_random(
    weights: Mapping[str, Tensor], sparsity: float, generator: torch.Generator, alive: Alive = None
) -> dict[str, Tensor]:
    """Remove weights drawn uniformly from all layers together.

    Args:
        weights: parameter name -> tensor.
        sparsity: the share to remove, in (0, 1); exactly round(sparsity * number of weights) go.
        generator: on the CPU.
        alive: which weights are left to choose from, as the mask that is returned; none: all.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays.
    """
    count = sum(weight.numel() for weight in weights.values())
    place = torch.empty(count, dtype=torch.float64)
    place[torch.randperm(count, generator=generator)] = torch.arange(count, dtype=torch.float64)
    return by_layer(keep_largest(place, round(sparsity * count), flat(alive)), weights)
