"""Synthesis: dream images from what the teacher remembers of its training data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from resprout import precision
from resprout.checkpoints import Checkpoint, fingerprint
from resprout.progress import Progress, Report, silent
from resprout.recipe import DeepInversionSection, PaperSynthesisSection
from resprout.sharding import too_many_shards
from resprout.synthesis import deep_inversion, paper
from resprout.synthesis.engine import Watch
from resprout.synthesis.groups import Group, GroupResult, merge, plan, run, shard, shard_of
from resprout.types import BNStatistics, DreamSet, DreamShard, Teacher

GroupSynthesizer = Callable[[Group, Watch], GroupResult]
Prepare = Callable[..., tuple[GroupSynthesizer, int]]


def synthesize(
    teacher: Teacher,
    statistics: BNStatistics,
    section: DeepInversionSection | PaperSynthesisSection,
    *,
    seed: int,
    report: Report = silent,
    checkpoint: Checkpoint | None = None,
    device: torch.device | None = None,
) -> DreamSet:
    """Dream images for a teacher, balanced over its classes: `synthesize_shard` for the whole set.

    Returns:
        float16 images in normalised model-input space.
    """
    whole = synthesize_shard(
        teacher, statistics, section, seed=seed, report=report, checkpoint=checkpoint, device=device
    )
    return merge([whole])


def synthesize_shard(
    teacher: Teacher,
    statistics: BNStatistics,
    section: DeepInversionSection | PaperSynthesisSection,
    *,
    seed: int,
    shard_index: int = 0,
    num_shards: int = 1,
    report: Report = silent,
    checkpoint: Checkpoint | None = None,
    device: torch.device | None = None,
) -> DreamShard:
    """One worker's share of the dreams; `merge` puts the shares together, and no image depends on their number.

    Args:
        teacher: is not changed.
        statistics: the teacher's running statistics, which the dreams are to match.
        section: which method, how many images, how long.
        seed: with the section and the inputs, determines every bit of the result on one kind of machine.
        shard_index, num_shards: which share of how many.
        report: is told how far the work is.
        checkpoint: finished groups are kept here and not made again.
        device: default: the first GPU, or the CPU.

    Raises:
        RecipeError: this shard has no group.
    """
    device = device or precision.best_device()
    prepare = METHODS[section.method]
    synthesizer, iterations = prepare(teacher, statistics.to(device), section, seed, device)
    all_groups = groups_of(section)
    groups = shard(all_groups, shard_index, num_shards)
    if not groups:
        raise too_many_shards(num_shards, len(all_groups))
    key = f"synthesis-{fingerprint(teacher.network, section.model_dump(), seed)}"
    total = iterations * len(groups)

    def one(group: Group) -> GroupResult:
        before = iterations * (group.index - groups[0].index)
        return synthesizer(
            group, lambda done, losses: report(Progress("dreams", before + done, total, "iterations", losses))
        )

    report(Progress("dreams", 0, total, "iterations"))
    return shard_of(groups, run(groups, one, checkpoint, key), len(all_groups), teacher.info.num_classes)


def groups_of(section: DeepInversionSection | PaperSynthesisSection) -> list[Group]:
    """The groups that a whole set is made of."""
    return plan(section.num_images, section.num_held_out, section.group_size)


def _deep_inversion(
    teacher: Teacher,
    statistics: BNStatistics,
    section: DeepInversionSection,
    seed: int,
    device: torch.device,
) -> tuple[GroupSynthesizer, int]:
    dtype = precision.resolve(section.precision, device)
    network = precision.frozen_copy(teacher.network, dtype, device)

    def one(group: Group, watch: Watch) -> GroupResult:
        return deep_inversion.synthesize_group(
            network,
            statistics,
            teacher.info.input,
            teacher.info.num_classes,
            section,
            group,
            seed=seed,
            watch=watch,
        )

    return one, section.iterations


def _paper(
    teacher: Teacher,
    statistics: BNStatistics,
    section: PaperSynthesisSection,
    seed: int,
    device: torch.device,
) -> tuple[GroupSynthesizer, int]:
    network: nn.Module = precision.frozen_copy(teacher.network, torch.float32, device)

    def one(group: Group, watch: Watch) -> GroupResult:
        return paper.synthesize_group(network, statistics, teacher.info.input, group, seed=seed, watch=watch)

    return one, paper.ITERATIONS


METHODS: dict[str, Prepare] = {"deep_inversion": _deep_inversion, "paper": _paper}

__all__ = ["METHODS", "merge", "synthesize", "synthesize_shard"]
