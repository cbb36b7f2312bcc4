"""The smallest weights of each layer go, of wide layers more: Erdős–Rényi-Kernel (Evci et al., arXiv 1911.11134)."""

from __future__ import annotations

from torch import Tensor

from resprout.pruning.magnitude import ranks


def erk(weight: Tensor) -> Tensor:
    """Scores of which a layer has as many above any threshold as its shape is due.

    Section 3, arXiv 1911.11134: a layer's sparsity is 1 - (in + out + height + width) / (in * out * height * width), up
    to a common scale; so it keeps weights in proportion to the sum of its sizes, until it keeps all. Its k-th largest
    weight is due, to the nearest whole one, when the scale has reached (k - 1/2) / (in + out + height + width).

    Args:
        weight: one layer's, float32 on the CPU.

    Returns:
        float64, of the weight's shape, negative.
    """
    from_the_largest = weight.numel() + 1 - ranks(weight)
    return (0.5 - from_the_largest) / sum(weight.shape)
