"""The smallest weights of each layer go, of wide layers more: Erdős–Rényi-Kernel (Evci et al., arXiv 1911.11134)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from resprout.pruning.candidates import Alive, by_layer, flat
from resprout.pruning.magnitude import keep_largest


def erk(
    weights: Mapping[str, Tensor], sparsity: float, _generator: torch.Generator, alive: Alive = None
) -> dict[str, Tensor]:
    """Remove the smallest weights within each layer, whose share the layer's shape decides.

    Args:
        weights: parameter name -> float32 tensor on the CPU.
        sparsity: the share to remove in all, in (0, 1); exactly round(sparsity * number of weights) go.
        alive: which weights are left to choose from, as the mask that is returned; none: all.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays.
    """
    scores = torch.cat([erk_scores(weight) for weight in weights.values()])
    return by_layer(keep_largest(scores, round(sparsity * scores.numel()), flat(alive)), weights)


def erk_scores(weight: Tensor) -> Tensor:
    """Scores of which a layer has as many above any threshold as its shape is due.

    Section 3, arXiv 1911.11134: a layer's sparsity is 1 - (in + out + height + width) / (in * out * height * width), up
    to a common scale; so it keeps weights in proportion to the sum of its sizes, until it keeps all. Its k-th largest
    weight is due, to the nearest whole one, when the scale has reached (k - 1/2) / (in + out + height + width).

    Args:
        weight: one layer's, float32 on the CPU.

    Returns:
        float64, shape (number of weights,), negative.
    """
    order = weight.abs().flatten().argsort(stable=True)
    rank = torch.empty(weight.numel(), dtype=torch.float64)
    rank[order] = torch.arange(weight.numel(), 0, -1, dtype=torch.float64)
    return (0.5 - rank) / sum(weight.shape)
