"""In which order a layer misses its weights least, where those that are left make up for those that went."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 64
"""In how many steps a row loses its weights: of a fan-in of 576, nine at a time."""
MEMORY = 2**29
"""How many bytes the inverses of the rows that are worked on together may take."""


def removal_errors(weights: Tensor, grams: Tensor, alive: Tensor, *, steps: int = STEPS) -> Tensor:
    """The squared error that each weight's removal adds, in the order in which a row misses its weights least.

    Optimal Brain Surgeon (Hassibi and Stork, 1992) for each row of a linear map, as Optimal Brain Compression has it
    (Eq. 4 and Algorithm 1, arXiv 2208.11580): the weight goes next with the smallest w² / [H⁻¹] of its place, the
    others are set to what is then best, and H⁻¹ loses its row and column. Here some go at a time, and share their
    common error.

    Args:
        weights: float64, shape (rows, fan_in).
        grams: H = E[x xᵀ] of the inputs of each row's group, positive definite, float64, shape (groups, fan_in,
            fan_in). Each group has as many rows, in order.
        alive: which weights are there, bool, shape (rows, fan_in); the others are 0.
        steps: in how many steps a row loses all of its weights; fan_in takes them one by one.

    Returns:
        Shape (rows, fan_in). In a row it never falls in the order in which weights go, so that whatever threshold is
        set, those go that this order takes first. 0 where no weight is.
    """
    rows, fan_in = weights.shape
    per_group = rows // len(grams)
    at_once = max(1, MEMORY // (fan_in * fan_in * weights.element_size()))
    found = torch.zeros_like(weights)
    whole = _inverses(grams, torch.ones_like(grams[:, 0], dtype=torch.bool)) if alive.all() else None
    for chosen in torch.arange(rows, device=weights.device).split(at_once):
        group, there = chosen // per_group, alive[chosen]
        inverses = _inverses(grams[group], there) if whole is None else whole[group]
        found[chosen] = _errors_of_rows(weights[chosen], inverses, there, steps)
    return found


def _errors_of_rows(weights: Tensor, inverses: Tensor, alive: Tensor, steps: int) -> Tensor:
    """As `removal_errors`, with a H⁻¹ for each row, over what it has."""
    found, reached = torch.zeros_like(weights), weights.new_zeros(len(weights), 1)
    places = torch.arange(weights.shape[1], device=weights.device).expand_as(weights)
    left = _Left(weights, alive, inverses)
    each = math.ceil(left.most / steps)
    while left.most:
        if 4 * left.most <= 3 * left.alive.shape[1]:
            stay = left.alive.int().argsort(dim=1, descending=True, stable=True)[:, : left.most]
            left, places = left.at(stay), places.gather(1, stay)
        gone = left.cheapest(min(each, left.most))
        there = left.alive.gather(1, gone)
        left, errors = left.without(gone)
        reached = torch.maximum(reached, errors / there.sum(1, keepdim=True).clamp_min(1))
        where = places.gather(1, gone)
        found.scatter_(1, where, torch.where(there, reached, found.gather(1, where)))
    return found


def _inverses(grams: Tensor, alive: Tensor) -> Tensor:
    """Each row's H⁻¹ over the weights that it has; where one is gone, a row and a column of the unit matrix."""
    there = alive[:, :, None] & alive[:, None, :]
    unit = torch.eye(grams.shape[1], dtype=grams.dtype, device=grams.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(torch.where(there, grams, unit)))


@dataclass
class _Left:
    """What rows have left.

    Args:
        weights, alive: shape (rows, places).
        inverses: H⁻¹ over the weights that are alive, and the unit matrix elsewhere, shape (rows, places, places).
    """

    weights: Tensor
    alive: Tensor
    inverses: Tensor

    @property
    def most(self) -> int:
        """How many weights the fullest row has."""
        return int(self.alive.sum(1).max())

    def at(self, places: Tensor) -> _Left:
        """These places alone, shape (rows, fewer places)."""
        across = places[:, None, :].expand(-1, self.inverses.shape[1], -1)
        down = places[:, :, None].expand(-1, -1, places.shape[1])
        inverses = self.inverses.gather(2, across).gather(1, down)
        return _Left(self.weights.gather(1, places), self.alive.gather(1, places), inverses)

    def cheapest(self, count: int) -> Tensor:
        """Each row's places whose weight alone adds least error, shape (rows, count); gone ones where it has fewer."""
        errors = self.weights.square() / self.inverses.diagonal(dim1=1, dim2=2)
        return errors.masked_fill(~self.alive, math.inf).topk(count, largest=False).indices

    def without(self, gone: Tensor) -> tuple[_Left, Tensor]:
        """The others, set to what is best without these places; and the squared error that adds, shape (rows, 1).

        It takes the inverses along: this one is of no more use.
        """
        places = self.inverses.shape[1]
        columns = self.inverses.gather(2, gone[:, None, :].expand(-1, places, -1))
        block = columns.gather(1, gone[:, :, None].expand(-1, -1, gone.shape[1]))
        going = self.weights.gather(1, gone)[:, :, None]
        solved = torch.linalg.solve(block, torch.cat([going, columns.mT], 2))
        errors = (going * solved[:, :, :1]).sum(1)
        weights = (self.weights - (columns @ solved[:, :, :1]).squeeze(2)).scatter(1, gone, 0.0)
        inverses = self.inverses.baddbmm_(columns, solved[:, :, 1:], alpha=-1)
        inverses.scatter_(1, gone[:, :, None].expand(-1, -1, places), 0.0)
        inverses.scatter_(2, gone[:, None, :].expand(-1, places, -1), 0.0)
        inverses.diagonal(dim1=1, dim2=2).scatter_(1, gone, 1.0)
        return _Left(weights, self.alive.scatter(1, gone, False), inverses), errors
