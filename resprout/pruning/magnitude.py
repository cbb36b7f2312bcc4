"""The smallest weights go: across the network, or layer by layer (Han et al., arXiv 1506.02626)."""

from __future__ import annotations

import torch
from torch import Tensor


def magnitudes(weight: Tensor) -> Tensor:
    """The weights without their signs, so that the smallest of the whole network go."""
    return weight.abs()


def layer_magnitudes(weight: Tensor) -> Tensor:
    """Which share of its layer is smaller than each weight, so that every layer loses the same share, to a weight.

    Returns:
        float64, in (0, 1). Among equal weights, the one that comes later counts as larger.
    """
    return (ranks(weight) - 0.5) / weight.numel()


def ranks(weight: Tensor) -> Tensor:
    """1 for a layer's smallest weight in magnitude, and so on; float64, of the weight's shape."""
    flat = weight.abs().flatten()
    rank = torch.empty(flat.numel(), dtype=torch.float64)
    rank[flat.argsort(stable=True)] = torch.arange(1, flat.numel() + 1, dtype=torch.float64)
    return rank.view(weight.shape)
