"""Whole blocks of weights go: of channels that neighbour each other, with their kernels (Narang et al., 1711.02782)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Grid:
    """A layer's weights in blocks of rows and columns; what is left over at the edges makes smaller blocks.

    Args:
        index: int64, shape (rows, columns): which block a kernel is in, counted row by row.
        sizes: int64, shape (blocks,): how many weights each holds.
    """

    index: Tensor
    sizes: Tensor


def block(
    weights: Mapping[str, Tensor],
    sparsity: float,
    *,
    shape: Sequence[int],
    norm: Literal["l1", "l2"],
    relative: bool,
) -> dict[str, Tensor]:
    """Remove the blocks whose weights are smallest on average, across all layers together.

    Args:
        weights: parameter name -> float32 tensor on the CPU, shape (rows, columns, ...): output and input channels.
        sparsity: the share of weights to remove, in (0, 1). As many whole blocks go as come nearest to it: the weights
            removed differ from round(sparsity * number of weights) by no more than half a block.
        shape: (rows, columns) of a block; the kernels at its places belong to it.
        norm: l1 scores a block by its mean magnitude, l2 by its root mean square.
        relative: in units of what the layer's nonzero weights score, so that scores of layers of small weights are not
            small, nor those of layers that were pruned before large.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays; equal within each block. Among equal
        blocks, those that come first are removed.
    """
    grids = {name: _grid(weight, *shape) for name, weight in weights.items()}
    scores = torch.cat([_scores(weight, grids[name], norm, relative) for name, weight in weights.items()])
    sizes = torch.cat([grid.sizes for grid in grids.values()])
    order = scores.argsort(stable=True)
    gone = torch.cat([sizes.new_zeros(1), sizes[order].cumsum(0)])
    num_removed = int((gone - round(sparsity * int(gone[-1]))).abs().argmin())
    kept = torch.ones_like(scores, dtype=torch.bool)
    kept[order[:num_removed]] = False
    parts = kept.split([len(grid.sizes) for grid in grids.values()])
    return {
        name: part[grids[name].index].view(*weight.shape[:2], *[1] * (weight.ndim - 2)).expand_as(weight).clone()
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }


def _grid(weight: Tensor, rows: int, columns: int) -> _Grid:
    across = -(-weight.shape[1] // columns)
    index = torch.arange(weight.shape[0])[:, None] // rows * across + torch.arange(weight.shape[1]) // columns
    return _Grid(index, torch.bincount(index.flatten()) * weight[0, 0].numel())


def _scores(weight: Tensor, grid: _Grid, norm: str, relative: bool) -> Tensor:
    """Float64, shape (blocks,), not negative."""
    magnitudes = weight.double().abs().reshape(grid.index.numel(), -1)
    powers = magnitudes if norm == "l1" else magnitudes.square()
    sums = torch.zeros(len(grid.sizes), dtype=torch.float64).index_add_(0, grid.index.flatten(), powers.sum(1))
    means = sums / grid.sizes
    if relative:
        means /= (powers.sum() / powers.count_nonzero()).nan_to_num(1.0)
    return means if norm == "l1" else means.sqrt()
