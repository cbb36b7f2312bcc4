"""The smallest weights go: across the network, or layer by layer (Han et al., arXiv 1506.02626)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from resprout.pruning.candidates import by_layer


def global_magnitude(weights: Mapping[str, Tensor], sparsity: float, _generator: torch.Generator) -> dict[str, Tensor]:
    """Remove the weights that are smallest in magnitude across all layers together.

    Args:
        weights: parameter name -> float32 tensor on the CPU.
        sparsity: the share to remove, in (0, 1); exactly round(sparsity * number of weights) go.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays.
    """
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights.values()])
    kept = keep_largest(magnitudes, round(sparsity * magnitudes.numel()))
    return by_layer(kept, weights)


def layer_magnitude(weights: Mapping[str, Tensor], sparsity: float, _generator: torch.Generator) -> dict[str, Tensor]:
    """Remove the weights that are smallest in magnitude within each layer; arguments as for `global_magnitude`.

    Exactly round(sparsity * a layer's number of weights) go from each layer.
    """
    return {
        name: keep_largest(weight.abs().flatten(), round(sparsity * weight.numel())).view(weight.shape)
        for name, weight in weights.items()
    }


def keep_largest(scores: Tensor, num_removed: int) -> Tensor:
    """All but the `num_removed` smallest scores; among equal ones, those that come first are removed.

    Args:
        scores: float32 on the CPU, shape (n,).
        num_removed: in [0, n].

    Returns:
        Bool, shape (n,), with exactly n - num_removed True.
    """
    if num_removed == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    # a selection, not a sort: VGG-19 has 144 million weights
    threshold = float(np.partition(scores.numpy(), num_removed - 1)[num_removed - 1])
    keep = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    num_ties_kept = scores.numel() - num_removed - int(keep.sum())
    keep[ties[ties.numel() - num_ties_kept :]] = True
    return keep
