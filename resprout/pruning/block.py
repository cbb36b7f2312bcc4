"""Whole blocks of weights go: of channels that neighbour each other, with their kernels (Narang et al., 1711.02782)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from resprout.pruning.candidates import Alive


def block(
    weights: Mapping[str, Tensor],
    num_removed: int,
    alive: Alive,
    least: Mapping[str, int],
    *,
    shape: Sequence[int],
    norm: Literal["l1", "l2"],
    relative: bool,
) -> dict[str, Tensor]:
    """Remove the blocks whose weights are smallest on average, across all layers together.

    Args:
        weights: parameter name -> float32 tensor on the CPU, shape (rows, columns, ...): output and input channels.
        num_removed: how many weights are to be gone, those that are gone already among them. As many whole blocks go as
            come nearest to it: by no more than half a block, but for floors.
        alive: which weights are left, of the same names.
        least: how many weights stay of each layer in any case; it keeps its best blocks, with as many or more.
        shape: (rows, columns) of a block; the kernels at its places belong to it.
        norm: l1 scores a block by its mean magnitude, l2 by its root mean square.
        relative: in units of what the layer's nonzero weights score, so that scores of layers of small weights are not
            small, nor those of layers that were pruned before large.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays; blocks stay or go whole, but for what
        was gone before. Among equal blocks, those that come first are removed.
    """
    blocks = {name: _Blocks.of(weight, alive[name], shape, norm, relative) for name, weight in weights.items()}
    scores = torch.cat([each.scores.masked_fill(each.best(least[name]), math.inf) for name, each in blocks.items()])
    sizes = torch.cat([each.sizes for each in blocks.values()])
    order = scores.argsort(stable=True)
    dead = sum(left.numel() for left in alive.values()) - int(sizes.sum())
    gone = torch.cat([sizes.new_zeros(1), sizes[order].cumsum(0)])[: int(scores.isfinite().sum()) + 1] + dead
    kept = torch.ones_like(scores, dtype=torch.bool)
    kept[order[: int((gone - num_removed).abs().argmin())]] = False
    parts = kept.split([len(each.sizes) for each in blocks.values()])
    return {
        name: part[blocks[name].index].view(*weight.shape[:2], *[1] * (weight.ndim - 2)) & alive[name]
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }


def in_whole_blocks(
    weights: Mapping[str, Tensor],
    alive: Alive,
    least: Mapping[str, int],
    *,
    shape: Sequence[int],
    norm: Literal["l1", "l2"],
    relative: bool,
) -> dict[str, int]:
    """How many weights each layer keeps where it keeps its best blocks; arguments as for `block`."""
    blocks = {name: _Blocks.of(weight, alive[name], shape, norm, relative) for name, weight in weights.items()}
    return {name: int(each.sizes[each.best(least[name])].sum()) for name, each in blocks.items()}


@dataclass(frozen=True)
class _Blocks:
    """A layer's weights in blocks of rows and columns; what is left over at the edges makes smaller blocks.

    Args:
        index: int64, shape (rows, columns): which block a kernel is in, counted row by row.
        sizes: int64, shape (blocks,): how many weights each has that are not gone.
        scores: float64, shape (blocks,), not negative.
    """

    index: Tensor
    sizes: Tensor
    scores: Tensor

    @classmethod
    def of(cls, weight: Tensor, alive: Tensor, shape: Sequence[int], norm: str, relative: bool) -> _Blocks:
        """Those of a layer; arguments as for `block`."""
        (rows, columns), across = shape, -(-weight.shape[1] // shape[1])
        index = torch.arange(weight.shape[0])[:, None] // rows * across + torch.arange(weight.shape[1]) // columns
        powers = weight.double().abs() if norm == "l1" else weight.double().square()
        means = _sums(powers, index) / _sums(torch.ones_like(powers), index)
        if relative:
            means /= (powers.sum() / powers.count_nonzero()).nan_to_num(1.0)
        return cls(index, _sums(alive.double(), index).long(), means if norm == "l1" else means.sqrt())

    def best(self, least: int) -> Tensor:
        """The best blocks that have at least so many weights together: bool, shape (blocks,)."""
        order = self.scores.argsort(stable=True).flip(0)
        before = self.sizes[order].cumsum(0) - self.sizes[order]
        return torch.zeros_like(self.scores, dtype=torch.bool).scatter(0, order, before < least)


def _sums(values: Tensor, index: Tensor) -> Tensor:
    """Each block's: float64, shape (blocks,)."""
    blocks = torch.zeros(int(index.max()) + 1, dtype=torch.float64)
    return blocks.index_add_(0, index.flatten(), values.reshape(index.numel(), -1).sum(1))
