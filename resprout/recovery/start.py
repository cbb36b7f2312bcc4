"""What distillation starts from, and what follows from it for the training."""

from __future__ import annotations

import torch
from torch import Tensor

from resprout import precision
from resprout.heldout import with_blends
from resprout.recipe import DistillationSection
from resprout.recovery.reconstruction import solvable
from resprout.types import DreamSet, Student, Teacher

MENDABLE_AGREEMENT = 0.5
"""Measured on the example's ResNet-20: up to 75 % sparsity (agreement 0.7 and more) solved layers and a small step
get further, at 90 % (0.3) training anew does. Agreement passes 0.5 between 80 and 85 %."""
MENDED_AGREEMENT = 0.7
"""Of solved layers, measured there too: with 0.85 (`optimal_brain` at 75 %) a small step gets further, with 0.77 (at
85 %) both end alike, with 0.61 (at 90 %, where the damage looks mendable) training anew does, by 1.8 points."""
MADE_UP_AGREEMENT = 0.8
"""The same of a student that was trained before. Measured there, in three rounds: with 0.87 and more on the way to 75 %
a small step each time ends 0.6 points higher, with 0.74 to 0.77 on the way to 90 % 0.6 to 1.0 lower. Rounds on the way
to more than solving can mend at once do not ask (`prune_on_dreams`)."""


def settle(
    section: DistillationSection,
    teacher: Teacher,
    student: Student,
    repaired: Student,
    dreams: DreamSet,
    device: torch.device | None = None,
) -> DistillationSection:
    """The section with its start chosen, and the step size and BatchNorm mode that follow from it filled in.

    Solved layers need little more, and fit the teacher's BatchNorm statistics: a small step keeps what solving gained,
    and re-estimating the statistics would lose it. Once they are solved, `mended` says whether that was enough. They
    pull towards the teacher's weights, which a student that was trained since has left: one that was pruned in rounds
    goes on as it is, with a small step too, where it still answers (`made_up`) and has the teacher's statistics still;
    one that was trained anew in between is trained anew.

    Args:
        section: what it says itself, stays.
        student: as pruning left it; whether its weights are still the teacher's decides, and how well it answers where
            they are not.
        repaired: with its BatchNorm statistics re-estimated; how well it still answers decides otherwise.
        dreams: the held-out ones and their blends are asked; where none are held out, some of the others.
        device: default: the first GPU, or the CPU.
    """
    device = device or precision.best_device()
    start = section.start if section.start != "auto" else _fitting_start(teacher, student, repaired, dreams, device)
    little = start == "reconstructed" or (section.start == "auto" and start == "pruned")
    frozen = little if section.keep_batchnorm_frozen is None else section.keep_batchnorm_frozen
    learning_rate = section.learning_rate or (1e-3 if little else 3e-3)
    return section.model_copy(update={"start": start, "keep_batchnorm_frozen": frozen, "learning_rate": learning_rate})


def mended(
    teacher: Teacher,
    student: Student,
    dreams: DreamSet,
    device: torch.device | None = None,
    *,
    enough: float = MENDED_AGREEMENT,
) -> bool:
    """Whether a student with solved layers answers so well that a small step is all it needs.

    What is asked are the held-out dreams and their blends, as in `settle`.

    Args:
        enough: the share of the teacher's answers, in [0, 1]; `MADE_UP_AGREEMENT` for one that was trained before.
    """
    return _agreement(teacher, student, _asked(dreams), device or precision.best_device()) >= enough


def _asked(dreams: DreamSet) -> Tensor:
    held_out = dreams.held_out[0]
    return with_blends(held_out if len(held_out) else dreams.training[0][:128])


def _fitting_start(
    teacher: Teacher, student: Student, repaired: Student, dreams: DreamSet, device: torch.device
) -> str:
    if _was_trained(teacher, student):
        as_it_is = _keeps_statistics(teacher, student) and mended(
            teacher, student, dreams, device, enough=MADE_UP_AGREEMENT
        )
        return "pruned" if as_it_is else "repaired"
    if not solvable(repaired.network, repaired.mask):
        return "repaired"
    agreement = _agreement(teacher, repaired, _asked(dreams), device)
    return "reconstructed" if agreement >= MENDABLE_AGREEMENT else "repaired"


def _was_trained(teacher: Teacher, student: Student) -> bool:
    theirs, ours = dict(teacher.network.named_parameters()), dict(student.network.named_parameters())
    same_shape = {name: kept for name, kept in student.mask.keep.items() if kept.shape == theirs[name].shape}
    return any(not torch.equal(ours[name][kept], theirs[name][kept]) for name, kept in same_shape.items())


def _keeps_statistics(teacher: Teacher, student: Student) -> bool:
    """Whether all BatchNorm statistics are still the teacher's, so that they can stay frozen: not if trained anew."""
    theirs, ours = dict(teacher.network.named_buffers()), dict(student.network.named_buffers())
    moments = (name for name in theirs if name.endswith(("running_mean", "running_var")))
    return all(torch.equal(theirs[name], ours[name]) for name in moments if theirs[name].shape == ours[name].shape)


@torch.no_grad()
def _agreement(teacher: Teacher, student: Student, images: Tensor, device: torch.device) -> float:
    """The share of `images`, in [0, 1], for which both networks name the same class."""
    theirs, ours = (precision.frozen_copy(each.network, torch.float32, device) for each in (teacher, student))
    batches = (part.to(device) for part in images.split(128))
    return float(torch.cat([theirs(batch).argmax(1) == ours(batch).argmax(1) for batch in batches]).float().mean())
