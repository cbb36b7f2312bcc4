"""Whole channels go, so that what is left is a smaller dense network: fewer MACs, a smaller file, mostly less time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from resprout import precision
from resprout.channels import alike, shrink, whole_mask, zeroed
from resprout.cost import count_weight_uses
from resprout.errors import RecipeError, UnsupportedModelError
from resprout.latency import measure_latency
from resprout.progress import Report
from resprout.pruning.candidates import candidates_of
from resprout.pruning.groups import Group, find_groups, plan_of
from resprout.pruning.importance import magnitudes, taylor_scores
from resprout.pruning.selection import (
    Budget,
    Step,
    budget_of,
    fewest_steps,
    kept_after,
    removal_order,
    steps_within,
)
from resprout.pruning.start import note_on_zeros, zeros_of
from resprout.pruning.subject import images_to_look_at
from resprout.recipe import StructuredSection
from resprout.seeding import generator
from resprout.types import DreamSet, PruningMask, Student, Teacher


def prune_channels(
    teacher: Teacher,
    section: StructuredSection,
    *,
    seed: int,
    dreams: DreamSet | None,
    start: Student | None,
    device: torch.device | None,
    report: Report,
) -> Student:
    """A student without the channels that are missed least; arguments and errors as for `pruning.prune`.

    Raises:
        RecipeError: also, there is a start.
    """
    if start is not None:
        raise RecipeError(
            "pruning.method: structured cannot prune a student further",
            why="its plan says which channels of the teacher stay",
            now="prune the teacher by channels first, and weights of what is left after that",
        )
    groups = _groups(teacher, section)
    zeros = zeros_of(teacher.network)
    device = device or precision.best_device()
    scores = _scores(teacher, groups, section, seed, dreams, device, report)
    with count_weight_uses(teacher.network) as uses, torch.no_grad():
        teacher.network(torch.zeros(1, *teacher.info.input.shape))
    budget = budget_of(teacher.network, groups, uses)
    # a magnitude is in units of its group's mean: what it is worth per MAC cannot be told
    by_macs = section.importance == "taylor" and section.target[0] != "channel_ratio"
    order = removal_order(budget, scores, section.round_to, by_macs=by_macs)
    student = _student(teacher, groups, scores, _steps(teacher, section, groups, budget, order, scores, device))
    if not zeros:
        return student
    mask = PruningMask({name: student.network.get_parameter(name) != 0 for name in student.mask.keep})
    whole = PruningMask(zeros)
    return replace(student, mask=mask, notes=(note_on_zeros(whole.num_weights - whole.num_kept, whole.num_weights),))


def _student(teacher: Teacher, groups: Sequence[Group], scores: Sequence[Tensor], steps: Sequence[Step]) -> Student:
    """The teacher without the channels that these steps remove.

    Raises:
        UnsupportedModelError: it does not compute what the teacher does with these channels at zero, or cannot be
            trained.
    """
    plan = plan_of(teacher.network, groups, kept_after(steps, scores))
    network = shrink(teacher.network, plan).requires_grad_(False)
    images = torch.randn(2, *teacher.info.input.shape, generator=torch.Generator().manual_seed(0))
    try:
        with precision.strict_float32():
            same = alike(network(images), zeroed(teacher.network, plan)(images))
            with torch.random.fork_rng(devices=[]):  # an auxiliary head runs in training alone, and is not followed
                copy.deepcopy(network).train()(images)
        reason = "it answers otherwise than the whole network in which these channels carry nothing"
    except (RuntimeError, ValueError) as error:  # code that counts on a number of channels
        same, reason = False, str(error)
    if not same:
        raise UnsupportedModelError(
            f"{teacher.info.architecture} cannot be cut along its channels: {reason}",
            why="its layers share channels in a way that torch-pruning does not follow",
            now="prune single weights instead, for example with pruning.method: global_magnitude",
        )
    return Student(teacher.info, network, whole_mask(network), plan)


def _groups(teacher: Teacher, section: StructuredSection) -> list[Group]:
    """The groups that the section lets go; none touches a weight that it excludes."""
    excluded = candidates_of(teacher.network, teacher.info.input.shape, section.exclude).excluded
    groups = [
        group
        for group in find_groups(teacher.network, teacher.info.input.shape)
        if not any(f"{member.layer}.weight" in excluded for member in group.members)
    ]
    widest = max((group.channels for group in groups), default=0)
    if widest <= section.round_to:
        raise RecipeError(
            f"there are no channels to remove: the widest layers that may be cut have {widest}, and pruning.round_to "
            f"keeps {section.round_to}",
            now="lower pruning.round_to, exclude less, or prune single weights",
        )
    return groups


def _scores(
    teacher: Teacher,
    groups: Sequence[Group],
    section: StructuredSection,
    seed: int,
    dreams: DreamSet | None,
    device: torch.device,
    report: Report,
) -> list[Tensor]:
    if section.importance == "magnitude":
        return magnitudes(teacher.network, groups)
    images, _ = images_to_look_at(teacher, dreams)
    draws = generator(seed, "pruning")
    with precision.repeatable(allow_tf32=False):
        return taylor_scores(teacher.network, groups, images, generator=draws, device=device, report=report)


def _steps(
    teacher: Teacher,
    section: StructuredSection,
    groups: Sequence[Group],
    budget: Budget,
    order: Sequence[Step],
    scores: Sequence[Tensor],
    device: torch.device,
) -> Sequence[Step]:
    """The steps that bring the network to the section's target, measured in the way that the target says."""
    target, ratio = section.target

    def latency(steps: Sequence[Step]) -> float:
        network, shape = _student(teacher, groups, scores, steps).network, teacher.info.input.shape
        measured = measure_latency(
            network, teacher.network, shape, batch_size=section.latency_batch_size, device=device
        )
        return measured.ratio

    if target == "latency_ratio":
        _refuse_out_of_reach(target, ratio, latency(order))
        return fewest_steps(order, lambda steps: latency(steps) <= ratio)
    size = Budget.macs if target == "macs_ratio" else Budget.channels
    _refuse_out_of_reach(target, ratio, size(budget.after(order)) / size(budget))
    return steps_within(budget, order, size, ratio * size(budget))


def _refuse_out_of_reach(name: str, wanted: float, least: float) -> None:
    if least > wanted:
        raise RecipeError(
            f"pruning.{name}: {wanted:g} is out of reach; with all channels gone that may go, it is {least:.3f}",
            now=f"raise pruning.{name}, lower pruning.round_to, or exclude less",
        )
