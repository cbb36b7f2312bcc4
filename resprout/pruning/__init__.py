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
from resprout.pruning.block import block, in_whole_blocks
from resprout.pruning.candidates import Alive
from resprout.pruning.erk import erk
from resprout.pruning.fisher import fisher
from resprout.pruning.lamp import lamp
from resprout.pruning.magnitude import layer_magnitudes, magnitudes
from resprout.pruning.optimal_brain import optimal_brain
from resprout.pruning.random import uniformly_random
from resprout.pruning.semi_structured import in_groups, semi_structured
from resprout.pruning.start import Ground, ground_of, is_the_teacher, refuse_growth
from resprout.pruning.structured import prune_channels
from resprout.pruning.subject import Subject, comparable
from resprout.pruning.synflow import synflow
from resprout.pruning.taylor import taylor
from resprout.pruning.teacher_guided import teacher_guided
from resprout.pruning.threshold import floors, keep_best, refuse_below_floors
from resprout.recipe import (
    BlockSection,
    MaskingSection,
    PruningBase,
    PruningSection,
    RandomSection,
    ScoredSection,
    SemiStructuredSection,
    StructuredSection,
    SynflowSection,
)
from resprout.types import DreamSet, PruningMask, Student, Teacher

LayerScores = Callable[[Tensor], Tensor]
"""A layer's weight, float32 on the CPU -> scores of its shape, larger where a weight is missed more; one threshold
serves all layers."""
Scores = Mapping[str, Tensor]
"""How much each weight matters, by parameter name; not negative, of the weight's shape."""
ScoringMethod = Callable[[Subject, Any], Scores]
"""(a network and what it may be asked with, the method's section) -> scores, which no sparsity changes."""

BY_LAYER: dict[str, LayerScores] = {
    "global_magnitude": magnitudes,
    "layer_magnitude": layer_magnitudes,
    "lamp": lamp,
    "erk": erk,
}
BY_SCORES: dict[str, ScoringMethod] = {
    "taylor": taylor,
    "fisher": fisher,
    "teacher_guided": teacher_guided,
    "optimal_brain": optimal_brain,
}
METHODS = (*BY_LAYER, *BY_SCORES, "random", "synflow", "semi_structured", "block")


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
    ground = ground_of(teacher, section.exclude, start)
    if isinstance(section, SemiStructuredSection):
        ground = ground.limited_to(in_groups(asked.original, ground.weights, section.group))
    refuse_growth(ground, section.sparsity)
    student = Student(
        teacher.info,
        copy.deepcopy(asked.original).eval().requires_grad_(False),
        PruningMask({**_kept(asked, ground, section, section.sparsity, scores), **ground.held}),
        None if start is None else start.channels,
        ground.notes(1.0 if isinstance(section, SemiStructuredSection) else section.sparsity),
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
    return _scores(asked.subject(ground_of(teacher, section.exclude, start).alive), section)


def largest_sparsity(teacher: Teacher, section: PruningBase) -> float:
    """The most that a section's floors let go of a teacher's weights, in [0, 1).

    Raises:
        RecipeError, UnsupportedModelError: as `prune`, but for those that are about a sparsity.
    """
    ground = ground_of(teacher, section.exclude, None)
    return 1 - sum(_floors(ground, section).values()) / ground.count


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

    def subject(self, alive: Alive) -> Subject:
        """What criteria see that look at more than weights."""
        return Subject(
            self.teacher,
            network=precision.frozen_copy(self.original, torch.float32, self.device),
            alive=alive,
            is_teacher=is_the_teacher(self.teacher.network, self.start),
            dreams=self.dreams,
            seed=self.seed,
            device=self.device,
            report=self.report,
        )


def _kept(
    asked: _Asked, ground: Ground, section: MaskingSection, sparsity: float, scores: Scores | None
) -> dict[str, Tensor]:
    """Which weights stay, by parameter name."""
    if isinstance(section, SemiStructuredSection):
        found = semi_structured(ground.weights, kept=section.kept, group=section.group)
        return {name: kept & ground.alive[name] for name, kept in found.items()}
    due = ground.due(sparsity)
    if due == ground.gone:
        return dict(ground.alive)
    least = _floors(ground, section)
    refuse_below_floors(ground.count - due, least, ground.count, section.min_density)
    if isinstance(section, BlockSection):
        return block(ground.weights, due, ground.alive, least, **_own_fields(section))
    if isinstance(section, SynflowSection):
        with precision.repeatable(allow_tf32=False):
            return synflow(asked.subject(ground.alive), due, least, section)
    if isinstance(section, ScoredSection):
        scores = _scores(asked.subject(ground.alive), section) if scores is None else scores
        scores = comparable(scores, ground.alive, section.normalisation)
    elif isinstance(section, RandomSection):
        scores = uniformly_random(ground.weights, torch.Generator().manual_seed(asked.seed))
    else:
        scores = {name: BY_LAYER[section.method](weight) for name, weight in ground.weights.items()}
    return keep_best(scores, due, ground.alive, least)


def _floors(ground: Ground, section: PruningBase) -> dict[str, int]:
    """How many weights each layer keeps in any case."""
    least = floors(ground.alive, section.min_density)
    if not isinstance(section, BlockSection):
        return least
    return in_whole_blocks(ground.weights, ground.alive, least, **_own_fields(section))


def _own_fields(section: BlockSection) -> dict[str, Any]:
    return section.model_dump(exclude={"method", *PruningBase.model_fields})


def _scores(subject: Subject, section: ScoredSection) -> Scores:
    with precision.repeatable(allow_tf32=False), precision.sound_gradients(subject.network):
        return BY_SCORES[section.method](subject, section)


def _undecided() -> RecipeError:
    return RecipeError(
        "pruning.sparsity is auto, and nothing has chosen it yet",
        why="it takes dreams to see how much a teacher can spare",
        now="give a number, or the one that resprout.auto_sparsity.choose_sparsity finds on dreams",
    )


__all__ = ["BY_LAYER", "BY_SCORES", "METHODS", "Scores", "largest_sparsity", "prune", "score"]
