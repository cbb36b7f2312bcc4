"""Random weights go: the baseline that any criterion must beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def uniformly_random(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """A place in one random order of all layers' weights.

    Args:
        weights: parameter name -> tensor.
        generator: on the CPU.

    Returns:
        Parameter name -> float64 tensor of the weight's shape; no two places are equal.
    """
    count = sum(weight.numel() for weight in weights.values())
    place = torch.empty(count, dtype=torch.float64)
    place[torch.randperm(count, generator=generator)] = torch.arange(count, dtype=torch.float64)
    parts = place.split([weight.numel() for weight in weights.values()])
    return {name: part.view(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}
