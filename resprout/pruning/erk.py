"""The smallest weights of each layer go, of wide layers more: Erdős–Rényi-Kernel (Evci et al., arXiv 1911.11134)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from resprout.pruning.magnitude import keep_largest


def erk(weights: Mapping[str, Tensor], sparsity: float, _generator: torch.Generator) -> dict[str, Tensor]:
    """Remove the smallest weights within each layer, whose share the layer's shape decides.

    Args:
        weights: parameter name -> float32 tensor on the CPU.
        sparsity: the share to remove in all, in (0, 1); exactly round(sparsity * number of weights) go.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays.
    """
    kept = kept_per_layer([tuple(weight.shape) for weight in weights.values()], sparsity)
    return {
        name: keep_largest(weight.abs().flatten(), weight.numel() - count).view(weight.shape)
        for (name, weight), count in zip(weights.items(), kept, strict=True)
    }


def kept_per_layer(shapes: list[tuple[int, ...]], sparsity: float) -> list[int]:
    """How many weights each layer keeps: a density in proportion to (sum of its sizes) / (product of its sizes).

    Section 3, arXiv 1911.11134: a layer's sparsity is 1 - (in + out + height + width) / (in * out * height * width),
    here scaled to what is asked for. A layer that would keep more than it has keeps all, and the others share the rest.

    Args:
        shapes: of each layer's weights.
        sparsity: the share to remove in all, in (0, 1).

    Returns:
        One number per layer, which add up to exactly what stays.
    """
    sizes = [torch.Size(shape).numel() for shape in shapes]
    total = sum(sizes) - round(sparsity * sum(sizes))
    full: set[int] = set()
    while True:
        left = total - sum(sizes[index] for index in full)
        open_ = [index for index in range(len(sizes)) if index not in full]
        scale = left / sum(sum(shapes[index]) for index in open_) if open_ else 0.0
        wanted = {index: scale * sum(shapes[index]) for index in open_}
        over = {index for index in open_ if wanted[index] > sizes[index]}
        if not over:
            break
        full |= over
    return _rounded([float(sizes[i]) if i in full else wanted[i] for i in range(len(sizes))], sizes, total)


def _rounded(wanted: list[float], sizes: list[int], total: int) -> list[int]:
    """Whole numbers that add up to `total`: the largest remainders are rounded up."""
    kept = [min(int(share), size) for share, size in zip(wanted, sizes, strict=True)]
    by_remainder = sorted(range(len(kept)), key=lambda index: kept[index] - wanted[index])
    for index in by_remainder:
        if sum(kept) == total:
            break
        kept[index] += kept[index] < sizes[index]
    return kept
