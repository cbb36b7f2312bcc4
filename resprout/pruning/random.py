"""Random weights go: the baseline that any criterion must beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from resprout.pruning.candidates import by_layer


def uniformly_random(weights: Mapping[str, Tensor], sparsity: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Remove weights drawn uniformly from all layers together.

    Args:
        weights: parameter name -> tensor.
        sparsity: the share to remove, in (0, 1); exactly round(sparsity * number of weights) go.
        generator: on the CPU.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays.
    """
    sizes = [weight.numel() for weight in weights.values()]
    kept = torch.ones(sum(sizes), dtype=torch.bool)
    kept[torch.randperm(sum(sizes), generator=generator)[: round(sparsity * sum(sizes))]] = False
    return by_layer(kept, weights)
