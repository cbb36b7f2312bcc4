"""Pruning further: what is left of a student that was pruned before."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from resprout.errors import RecipeError
from resprout.pruning.candidates import Alive
from resprout.types import Student


def is_the_teacher(teacher: nn.Module, start: Student | None) -> bool:
    """Whether the network that is about to be pruned answers everything as the teacher does, bit for bit."""
    if start is None:
        return True
    theirs = teacher.state_dict()
    return all(torch.equal(value.cpu(), theirs[name].cpu()) for name, value in start.network.state_dict().items())


def still_there(weights: Mapping[str, Tensor], start: Student | None) -> Alive:
    """Which of the maskable weights a student still has.

    Args:
        weights: parameter name -> its maskable weights.
        start: the student, or None, which has lost nothing.

    Raises:
        RecipeError: some are gone that are excluded now.
    """
    if start is None:
        return None
    keep = start.mask.keep
    for name, kept in keep.items():
        if name not in weights and not kept.all():
            raise RecipeError(
                f"pruning.exclude: {name} is to stay whole, and {int((~kept).sum())} of its weights are already gone",
                why="a weight that is gone stays gone",
                now="exclude what was excluded before",
            )
    return {name: keep.get(name, torch.ones_like(weight, dtype=torch.bool)) for name, weight in weights.items()}


def refuse_growth(alive: Alive, sparsity: float) -> None:
    """Raise RecipeError when more weights are gone already than the sparsity asks for."""
    if alive is None:
        return
    count = sum(left.numel() for left in alive.values())
    gone = count - sum(int(left.sum()) for left in alive.values())
    if gone > round(sparsity * count):
        raise RecipeError(
            f"pruning.sparsity: {sparsity:g} is less than the {gone / count:g} at which this student already is",
            why="a weight that is gone stays gone",
            now="raise the sparsity, or start from the teacher",
        )
