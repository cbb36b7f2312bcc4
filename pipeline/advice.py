"""What a recipe could do better by what was measured, told before a run and no reason to refuse it."""

from __future__ import annotations

from resprout.recipe import DistillationSection, PruningBase, Recipe

FEW_LEFT = 0.85
"""The sparsity from which rounds may be worth their time: at 75 % they gain 0.2 points, at 90 % 2.4, but not where a
network has room to spare (docs/results.md)."""


def advice(recipe: Recipe) -> list[str]:
    """A line for each choice that others were measured to beat; mostly none."""
    section = recipe.pruning
    if not (isinstance(section, PruningBase) and isinstance(recipe.recovery, DistillationSection)):
        return []
    if section.sparsity == "auto" or section.sparsity < FEW_LEFT or section.rounds > 1:
        return []
    method = "--set pruning.method=optimal_brain " if section.method == "global_magnitude" else ""
    return [
        f"note: where {100 * section.sparsity:.3g} % of the weights go, rounds bring more accuracy back to a network "
        f"that is not large for its task, in three times the time: {method}--set pruning.rounds=3"
    ]
