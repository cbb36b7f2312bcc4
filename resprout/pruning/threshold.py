"""One threshold for the scores of all layers, and a floor below which no layer falls."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from resprout.errors import RecipeError
from resprout.pruning.candidates import Alive


def keep_best(
    scores: Mapping[str, Tensor], num_removed: int, alive: Alive, least: Mapping[str, int]
) -> dict[str, Tensor]:
    """The weights with the largest scores across all layers together, and the best of each layer up to its floor.

    Args:
        scores: parameter name -> how much each weight matters, of the weight's shape, on any device; comparable across
            layers.
        num_removed: how many are gone afterwards, those that were gone before among them; `least` allows as many.
        alive: which are left to choose from, on the CPU, of the same names.
        least: how many stay of each layer in any case, no more than are left: `floors`.

    Returns:
        Parameter name -> bool tensor of the weight's shape, on the CPU, True where it stays; exactly `num_removed` are
        False. Where no layer would fall below its floor anyway, the mask is the one without floors.
    """
    left = {name: alive[name].flatten() for name in scores}
    raised = []
    for name, score in scores.items():
        flat = score.cpu().flatten()
        best = keep_largest(flat, flat.numel() - least[name], left[name])
        raised.append(flat.masked_fill(best, math.inf))
    kept = keep_largest(torch.cat(raised), num_removed, torch.cat(list(left.values())))
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape).clone() for (name, score), part in zip(scores.items(), parts, strict=True)}


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


def floors(alive: Alive, min_density: float) -> dict[str, int]:
    """How many weights each layer keeps at least: this share of what it was made with, and one; all where it has fewer.

    Args:
        alive: parameter name -> which of its weights are left.
        min_density: in [0, 1].
    """
    # rounded, since 0.1 * 30 is above 3 in floating point
    due = {name: max(1, math.ceil(round(min_density * left.numel(), 6))) for name, left in alive.items()}
    return {name: min(due[name], int(left.sum())) for name, left in alive.items()}


def refuse_below_floors(num_left: int, least: Mapping[str, int], count: int, min_density: float) -> None:
    """Raise RecipeError where fewer weights would be left than the floors of all layers keep together.

    Args:
        num_left: how many of `count` weights are to stay.
        least: how many of each layer stay in any case.
    """
    spared = sum(least.values())
    if num_left >= spared:
        return
    possible = math.floor(1e6 * (1 - spared / count)) / 1e6
    share = f"{100 * min_density:g} % of its weights" if min_density else "one weight"
    raise RecipeError(
        f"pruning.sparsity leaves {num_left:,} of {count:,} weights, and {len(least)} layers keep {spared:,} together",
        why=f"each keeps {share} in any case: nothing of an image would pass an empty layer",
        now=f"set pruning.sparsity to at most {possible:g}"
        + (", or lower pruning.min_density" if min_density else ", or exclude small layers"),
    )
