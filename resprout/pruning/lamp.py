"""The weights that their layer misses least go: layer-adaptive magnitudes, LAMP (Lee et al., arXiv 2010.07611)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from resprout.pruning.candidates import Alive, by_layer, flat
from resprout.pruning.magnitude import keep_largest


def lamp(
    weights: Mapping[str, Tensor], sparsity: float, _generator: torch.Generator, alive: Alive = None
) -> dict[str, Tensor]:
    """Remove the weights with the smallest LAMP scores across all layers together.

    A layer's largest weight scores 1, the most there is: no layer loses all of its weights before every other one has
    a single weight left.

    Args:
        weights: parameter name -> float32 tensor on the CPU.
        sparsity: the share to remove, in (0, 1); exactly round(sparsity * number of weights) go.
        alive: which weights are left to choose from, as the mask that is returned; none: all.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays.
    """
    scores = torch.cat([lamp_scores(weight) for weight in weights.values()])
    kept = keep_largest(scores, round(sparsity * scores.numel()), flat(alive))
    return by_layer(kept, weights)


def lamp_scores(weight: Tensor) -> Tensor:
    """What share a weight has in the energy of its layer once all smaller ones are gone.

    Eq. 4, arXiv 2010.07611: w_u² / sum of w_v² over the weights that are not smaller than w_u. Among equal weights, the
    one that comes later counts as larger.

    Args:
        weight: one layer's, float32 on the CPU.

    Returns:
        float64, shape (number of weights,), in [0, 1].
    """
    return shares_left(weight.flatten().double().square())


def shares_left(energy: Tensor) -> Tensor:
    """LAMP's scores of any energies that are not negative: float64, shape (..., n), along the last axis."""
    ascending, order = energy.sort(dim=-1, stable=True)
    left = ascending.flip(-1).cumsum(-1).flip(-1)
    # a layer of zeros has no energy to share: all of its weights are missed as little
    shares = torch.where(left > 0, ascending / left.clamp_min(torch.finfo(torch.float64).tiny), left)
    return torch.empty_like(energy).scatter(-1, order, shares)
