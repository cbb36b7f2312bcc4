"""The weights that their layer misses least go: layer-adaptive magnitudes, LAMP (Lee et al., arXiv 2010.07611)."""

from __future__ import annotations

import torch
from torch import Tensor


def lamp(weight: Tensor) -> Tensor:
    """What share a weight has in the energy of its layer once all smaller ones are gone.

    Eq. 4, arXiv 2010.07611: w_u² / sum of w_v² over the weights that are not smaller than w_u. Among equal weights, the
    one that comes later counts as larger. A layer's largest weight scores 1, the most there is.

    Args:
        weight: one layer's, float32 on the CPU.

    Returns:
        float64, of the weight's shape, in [0, 1].
    """
    return shares_left(weight.flatten().double().square()).view(weight.shape)


def shares_left(energy: Tensor) -> Tensor:
    """LAMP's scores of any energies that are not negative: float64, shape (..., n), along the last axis."""
    ascending, order = energy.sort(dim=-1, stable=True)
    left = ascending.flip(-1).cumsum(-1).flip(-1)
    # a layer of zeros has no energy to share: all of its weights are missed as little
    shares = torch.where(left > 0, ascending / left.clamp_min(torch.finfo(torch.float64).tiny), left)
    return torch.empty_like(energy).scatter(-1, order, shares)
