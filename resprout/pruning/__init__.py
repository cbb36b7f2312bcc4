"""Pruning: a copy of the teacher in which the least needed weights are zero, and the mask that says which.

Maskable are the weights of convolutions and linear layers; biases and BatchNorm always stay. Sparsity counts over
the maskable weights that the recipe does not exclude. Excluded ones are not in the mask at all, so that
`PruningMask.sparsity` is the sparsity that was asked for. `structured` removes whole channels instead, and says which
in a plan.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resprout import precision
from resprout.errors import RecipeError
from resprout.masking import apply_mask
from resprout.progress import Report, silent
from resprout.pruning.block import block
from resprout.pruning.candidates import Alive, prunable_weights, refuse_dead_layers
from resprout.pruning.erk import erk
from resprout.pruning.fisher import fisher
from resprout.pruning.lamp import lamp
from resprout.pruning.magnitude import global_magnitude, layer_magnitude
from resprout.pruning.optimal_brain import optimal_brain
from resprout.pruning.random import uniformly_random
from resprout.pruning.semi_structured import in_groups, semi_structured
from resprout.pruning.start import is_the_teacher, refuse_growth, still_there
from resprout.pruning.structured import prune_channels
from resprout.pruning.subject import Subject, keep_best
from resprout.pruning.synflow import synflow
from resprout.pruning.taylor import taylor
from resprout.pruning.teacher_guided import teacher_guided
from resprout.recipe import (
    MaskingSection,
    PruningBase,
    PruningSection,
    ScoredSection,
    SemiStructuredSection,
    StructuredSection,
)
from resprout.types import DreamSet, PruningMask, Student, Teacher

Method = Callable[[Mapping[str, Tensor], float, torch.Generator, Alive], dict[str, Tensor]]
"""(weights by parameter name, sparsity, generator for methods that draw, which weights are left) -> which weights stay,
by parameter name."""
GroupMethod = Callable[..., dict[str, Tensor]]
"""(weights by parameter name, sparsity, and by name the fields that only this method has) -> which weights stay, by
parameter name. Groups that are gone score 0, so that they are the first to go again."""
NetworkMethod = Callable[[Subject, float, Any], dict[str, Tensor]]
"""(a network and what it may be asked with, sparsity, the method's section) -> which weights stay, by name."""
Scores = Mapping[str, Tensor]
"""How much each weight matters, by parameter name; not negative, of the weight's shape."""
ScoringMethod = Callable[[Subject, Any], Scores]
"""(a network and what it may be asked with, the method's section) -> scores, which no sparsity changes."""

BY_WEIGHTS: dict[str, Method] = {
    "global_magnitude": global_magnitude,
    "layer_magnitude": layer_magnitude,
    "lamp": lamp,
    "erk": erk,
    "random": uniformly_random,
}
IN_GROUPS: dict[str, GroupMethod] = {"semi_structured": semi_structured, "block": block}
BY_NETWORK: dict[str, NetworkMethod] = {"synflow": synflow}
BY_SCORES: dict[str, ScoringMethod] = {
    "taylor": taylor,
    "fisher": fisher,
    "teacher_guided": teacher_guided,
    "optimal_brain": optimal_brain,
}
METHODS: dict[str, Method | GroupMethod | NetworkMethod | ScoringMethod] = {
    **BY_WEIGHTS,
    **IN_GROUPS,
    **BY_NETWORK,
    **BY_SCORES,
}


def prune(
    teacher: Teacher,
    section: PruningSection,
    *,
    seed: int,
    dreams: DreamSet | None = None,
    start: Student | None = None,
    scores: Scores | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> Student:
    """A pruned copy of the teacher, or of a student that is pruned further.

    Args:
        teacher: is not changed.
        section: the method, the sparsity, and globs of weights that stay.
        seed: what is drawn comes from it: `random`'s weights, labels, batches. Other methods give the same student
            for every seed.
        dreams: what methods look at that look at images; real images with their labels will do as well. None where
            `section.looks_at_images` is false.
        start: is not changed. Weights are chosen from its own; those that its mask says are gone stay gone, and count
            towards the sparsity. Default: the teacher.
        scores: what `score` found with the same section, seed, dreams and start, which costs most of the time where
            images are looked at. Default: they are found anew.
        device: default: the first GPU, or the CPU. What only reads weights runs on the CPU.
        report: is told how far the work is.

    Returns:
        A student whose pruned weights are exactly 0, or whose pruned channels are gone, and whose other parameters are
        the teacher's, or the start's.

    Raises:
        RecipeError: a layer would lose all its weights, an exclusion matches nothing, nothing is left to prune, the
            start is sparser than asked, or images are needed and there are none.
        ArtifactError: the dreams do not fit the teacher.
        UnsupportedModelError: the network has no convolution and no linear layer, or its channels cannot be followed.
    """
    if isinstance(section, StructuredSection):
        return prune_channels(teacher, section, seed=seed, dreams=dreams, start=start, device=device, report=report)
    if section.sparsity == "auto":
        raise _undecided()
    asked = _Asked(teacher, start, dreams, seed, device or precision.best_device(), report)
    keep = _kept(asked, section, section.sparsity, scores)
    refuse_dead_layers(keep, section.sparsity, section.method)
    channels = None if start is None else start.channels
    student = Student(
        teacher.info, copy.deepcopy(asked.original).eval().requires_grad_(False), PruningMask(keep), channels
    )
    apply_mask(student.network, student.mask)
    return student


def score(
    teacher: Teacher,
    section: ScoredSection,
    *,
    seed: int,
    dreams: DreamSet | None,
    start: Student | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> Scores:
    """How much each weight matters to a criterion that looks at images: what `prune` can be given for any sparsity.

    Args:
        teacher, seed, dreams, start, device, report: as for `prune`.
        section: the criterion; its sparsity is not looked at.

    Raises:
        RecipeError, ArtifactError, UnsupportedModelError: as `prune`, but for those that are about a sparsity.
    """
    asked = _Asked(teacher, start, dreams, seed, device or precision.best_device(), report)
    weights = prunable_weights(asked.original, section.exclude)
    return _scores(asked.subject(weights, still_there(weights, start)), section)


@dataclass(frozen=True)
class _Asked:
    """What `prune` and `score` are called with, whatever the method."""

    teacher: Teacher
    start: Student | None
    dreams: DreamSet | None
    seed: int
    device: torch.device
    report: Report

    @property
    def original(self) -> nn.Module:
        """The network whose weights are chosen from."""
        return self.teacher.network if self.start is None else self.start.network

    def subject(self, weights: Mapping[str, Tensor], alive: Alive) -> Subject:
        """What criteria see that look at more than weights."""
        return Subject(
            self.teacher,
            network=precision.frozen_copy(self.original, torch.float32, self.device),
            alive=alive or {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()},
            is_teacher=is_the_teacher(self.teacher.network, self.start),
            dreams=self.dreams,
            seed=self.seed,
            device=self.device,
            report=self.report,
        )


def _kept(asked: _Asked, section: MaskingSection, sparsity: float, scores: Scores | None) -> dict[str, Tensor]:
    """Which weights stay, by parameter name."""
    weights = prunable_weights(asked.original, section.exclude)
    if isinstance(section, SemiStructuredSection):
        weights = in_groups(asked.original, weights, section.group)
    alive = still_there(weights, asked.start)
    refuse_growth(alive, sparsity)
    if section.method in IN_GROUPS:
        own = section.model_dump(exclude={"method", *PruningBase.model_fields})
        found = IN_GROUPS[section.method](weights, sparsity, **own)
        return found if alive is None else {name: kept & alive[name] for name, kept in found.items()}
    if section.method in BY_WEIGHTS:
        return BY_WEIGHTS[section.method](weights, sparsity, torch.Generator().manual_seed(asked.seed), alive)
    subject = asked.subject(weights, alive)
    if isinstance(section, ScoredSection):
        scores = _scores(subject, section) if scores is None else scores
        num_gone = round(sparsity * subject.num_weights)
        return keep_best(scores, num_gone, subject.alive, normalisation=section.normalisation)
    with precision.repeatable(allow_tf32=False):
        return BY_NETWORK[section.method](subject, sparsity, section)


def _scores(subject: Subject, section: ScoredSection) -> Scores:
    with precision.repeatable(allow_tf32=False), precision.sound_gradients(subject.network):
        return BY_SCORES[section.method](subject, section)


def _undecided() -> RecipeError:
    return RecipeError(
        "pruning.sparsity is auto, and nothing has chosen it yet",
        why="it takes dreams to see how much a teacher can spare",
        now="give a number, or the one that resprout.auto_sparsity.choose_sparsity finds on dreams",
    )


__all__ = ["METHODS", "Scores", "prune", "score"]
