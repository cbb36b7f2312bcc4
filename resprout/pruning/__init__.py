"""Pruning: a copy of the teacher in which the least needed weights are zero, and the mask that says which.

Maskable are the weights of convolutions and linear layers; biases and BatchNorm always stay. Sparsity counts over
the maskable weights that the recipe does not exclude. Excluded ones are not in the mask at all, so that
`PruningMask.sparsity` is the sparsity that was asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from resprout.masking import apply_mask
from resprout.pruning.candidates import Alive, prunable_weights, refuse_dead_layers
from resprout.pruning.erk import erk
from resprout.pruning.lamp import lamp
from resprout.pruning.magnitude import global_magnitude, layer_magnitude
from resprout.pruning.random import uniformly_random
from resprout.pruning.start import still_there
from resprout.recipe import PruningSection
from resprout.types import PruningMask, Student, Teacher

Method = Callable[[Mapping[str, Tensor], float, torch.Generator, Alive], dict[str, Tensor]]
"""(weights by parameter name, sparsity, generator for methods that draw, which weights are left) -> which weights stay,
by parameter name."""

METHODS: dict[str, Method] = {
    "global_magnitude": global_magnitude,
    "layer_magnitude": layer_magnitude,
    "lamp": lamp,
    "erk": erk,
    "random": uniformly_random,
}


def prune(
    teacher: Teacher,
    section: PruningSection,
    *,
    seed: int,
    start: Student | None = None,
) -> Student:
    """A pruned copy of the teacher, or of a student that is pruned further.

    Args:
        teacher: is not changed.
        section: the method, the sparsity, and globs of weights that stay.
        seed: what `random` draws from; other methods give the same student for every seed.
        start: is not changed. Weights are chosen from its own; those that its mask says are gone stay gone, and count
            towards the sparsity. Default: the teacher.

    Returns:
        A student whose pruned weights are exactly 0 and whose other parameters are the teacher's, or the start's.

    Raises:
        RecipeError: a layer would lose all its weights, an exclusion matches nothing, nothing is left to prune, the
            start is sparser than asked.
        UnsupportedModelError: the network has no convolution and no linear layer.
    """
    original = teacher.network if start is None else start.network
    weights = prunable_weights(original, section.exclude)
    alive = still_there(weights, section.sparsity, start)
    keep = METHODS[section.method](weights, section.sparsity, torch.Generator().manual_seed(seed), alive)
    refuse_dead_layers(keep, section.sparsity, section.method)
    student = Student(teacher.info, copy.deepcopy(original).eval().requires_grad_(False), PruningMask(keep))
    apply_mask(student.network, student.mask)
    return student


__all__ = ["METHODS", "prune"]
