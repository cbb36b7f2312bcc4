"""The smallest weights go: across the network, or layer by layer (Han et al., arXiv 1506.02626)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from resprout.errors import RecipeError
from resprout.pruning.candidates import Alive, by_layer, flat


def global_magnitude(
    weights: Mapping[str, Tensor], sparsity: float, _generator: torch.Generator, alive: Alive = None
) -> dict[str, Tensor]:
    """Remove the weights that are smallest in magnitude across all layers together.

    Args:
        weights: parameter name -> float32 tensor on the CPU.
        sparsity: the share to remove, in (0, 1); exactly round(sparsity * number of weights) go.
        alive: which weights are left to choose from, as the mask that is returned; none: all.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays.
    """
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights.values()])
    kept = keep_largest(magnitudes, round(sparsity * magnitudes.numel()), flat(alive))
    return by_layer(kept, weights)


def layer_magnitude(
    weights: Mapping[str, Tensor], sparsity: float, _generator: torch.Generator, alive: Alive = None
) -> dict[str, Tensor]:
    """Remove the weights that are smallest in magnitude within each layer; arguments as for `global_magnitude`.

    Exactly round(sparsity * a layer's number of weights) go from each layer.
    """
    keep = {}
    for name, weight in weights.items():
        left = None if alive is None else alive[name].flatten()
        num_removed = round(sparsity * weight.numel())
        if left is not None and num_removed < int((~left).sum()):
            raise RecipeError(
                f"layer_magnitude at sparsity {sparsity:g}: {name} has already lost {int((~left).sum())} weights, "
                f"more than the {num_removed} that are its due",
                why="a weight that is gone stays gone, and each layer is to end at the same sparsity",
                now="raise pruning.sparsity, or choose a method that looks at all layers together",
            )
        keep[name] = keep_largest(weight.abs().flatten(), num_removed, left).view(weight.shape)
    return keep


def keep_largest(scores: Tensor, num_removed: int, alive: Tensor | None = None) -> Tensor:
    """All but the `num_removed` smallest scores; among equal ones, those that come first are removed.

    Args:
        scores: float32 or float64 on the CPU, shape (n,).
        num_removed: in [0, n].
        alive: bool, shape (n,): what is not, is removed first, and must fit into `num_removed`; none: all are.

    Returns:
        Bool, shape (n,), with exactly n - num_removed True.
    """
    if num_removed == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    if alive is not None:
        scores = scores.masked_fill(~alive, -math.inf)
    # a selection, not a sort: VGG-19 has 144 million weights
    threshold = float(np.partition(scores.numpy(), num_removed - 1)[num_removed - 1])
    keep = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    num_ties_kept = scores.numel() - num_removed - int(keep.sum())
    keep[ties[ties.numel() - num_ties_kept :]] = True
    return keep
