"""Synthesis: dream images from what the teacher remembers of its training data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from resprout import precision
from resprout.checkpoints import Checkpoint, fingerprint
from resprout.errors import RecipeError
from resprout.progress import Progress, Report, silent
from resprout.recipe import DeepInversionSection, PaperSynthesisSection
from resprout.synthesis import deep_inversion, paper
from resprout.synthesis.engine import Watch
from resprout.synthesis.groups import Group, GroupResult, assemble, merge, plan, run, shard
from resprout.types import BNStatistics, DreamSet, Student, Teacher

GroupSynthesizer = Callable[[Group, Watch], GroupResult]
Prepare = Callable[..., tuple[GroupSynthesizer, list[Group], int]]


def synthesize(
    teacher: Teacher,
    statistics: BNStatistics,
    section: DeepInversionSection | PaperSynthesisSection,
    *,
    seed: int,
    student: Student | None = None,
    shard_index: int = 0,
    num_shards: int = 1,
    report: Report = silent,
    checkpoint: Checkpoint | None = None,
    device: torch.device | None = None,
) -> DreamSet:
    """Dream images for a teacher, balanced over its classes.

    Args:
        teacher: is not changed.
        statistics: the teacher's running statistics, which the dreams are to match.
        section: which method, how many images, how long.
        seed: with the section and the inputs, determines every bit of the result on one kind of machine.
        student: a pruned student, for the student-aware term.
        shard_index, num_shards: make only this part of the set; `merge` puts the parts together.
        report: is told how far the work is.
        checkpoint: finished groups are kept here and not made again.
        device: default: the first GPU, or the CPU.

    Returns:
        float16 images in normalised model-input space.

    Raises:
        RecipeError: this shard has no group.
    """
    device = device or precision.best_device()
    prepare = METHODS[section.method]
    synthesizer, all_groups, iterations = prepare(teacher, _on(statistics, device), section, seed, student, device)
    groups = shard(all_groups, shard_index, num_shards)
    if not groups:
        raise RecipeError(
            f"shard {shard_index + 1} of {num_shards} has nothing to do: there are {len(all_groups)} groups of dreams",
            now="use at most as many shards as groups, or make synthesis.group_size smaller",
        )
    key = f"synthesis-{fingerprint(teacher.network, section.model_dump(), seed, student.network if student else None)}"
    total = iterations * len(groups)

    def one(group: Group) -> GroupResult:
        before = iterations * (group.index - groups[0].index)
        return synthesizer(
            group, lambda done, losses: report(Progress("dreams", before + done, total, "iterations", losses))
        )

    report(Progress("dreams", 0, total, "iterations"))
    return assemble(groups, run(groups, one, checkpoint, key), teacher.info.num_classes)


def _deep_inversion(
    teacher: Teacher,
    statistics: BNStatistics,
    section: DeepInversionSection,
    seed: int,
    student: Student | None,
    device: torch.device,
) -> tuple[GroupSynthesizer, list[Group], int]:
    dtype = precision.resolve(section.precision, device)
    network = precision.frozen_copy(teacher.network, dtype, device)
    pruned = precision.frozen_copy(student.network, dtype, device) if student else None

    def one(group: Group, watch: Watch) -> GroupResult:
        return deep_inversion.synthesize_group(
            network,
            statistics,
            teacher.info.input,
            teacher.info.num_classes,
            section,
            group,
            seed=seed,
            student=pruned,
            watch=watch,
        )

    return one, plan(section.num_images, section.num_held_out, section.group_size), section.iterations


def _paper(
    teacher: Teacher,
    statistics: BNStatistics,
    section: PaperSynthesisSection,
    seed: int,
    student: Student | None,
    device: torch.device,
) -> tuple[GroupSynthesizer, list[Group], int]:
    network: nn.Module = precision.frozen_copy(teacher.network, torch.float32, device)

    def one(group: Group, watch: Watch) -> GroupResult:
        return paper.synthesize_group(network, statistics, teacher.info.input, group, seed=seed, watch=watch)

    return one, plan(section.num_images, section.num_held_out, paper.BATCH_SIZE), paper.ITERATIONS


def _on(statistics: BNStatistics, device: torch.device) -> BNStatistics:
    layers = tuple(
        dataclasses.replace(layer, mean=layer.mean.to(device), variance=layer.variance.to(device))
        for layer in statistics.layers
    )
    return BNStatistics(layers)


METHODS: dict[str, Prepare] = {"deep_inversion": _deep_inversion, "paper": _paper}

__all__ = ["METHODS", "merge", "synthesize"]
