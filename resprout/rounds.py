"""Pruning with dreams in sight: by a criterion that looks at them, and in rounds with recovery in between.

One shot removes what the teacher needs least; after a recovery the student needs other weights than the teacher did, so
that rounds remove them where they are missed least now (Han et al., arXiv 1506.02626; Renda et al., arXiv 2003.02389).
There on training data, here on dreams.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from resprout.auto_sparsity import choose_sparsity, with_sparsity
from resprout.checkpoints import Checkpoint
from resprout.errors import RecipeError
from resprout.progress import Progress, Report, silent
from resprout.pruning import Scores, prune, score
from resprout.recipe import DistillationSection, PruningBase, PruningSection, RecoverySection, ScoredSection
from resprout.recovery import made_up, mendable, recover
from resprout.types import DreamSet, SparsityChoice, Student, Teacher


@dataclass(frozen=True)
class Pruned:
    """What pruning with dreams in sight gives.

    Args:
        student: as its last pruning left it: what recovery is to start from.
        choice: why it is as sparse as it is; None where the section says how sparse.
        notes: what people should know of the recoveries between rounds.
    """

    student: Student
    choice: SparsityChoice | None = None
    notes: tuple[str, ...] = ()


def prune_on_dreams(
    teacher: Teacher,
    dreams: DreamSet,
    section: PruningSection,
    recovery: RecoverySection,
    *,
    seed: int,
    report: Report = silent,
    checkpoint: Checkpoint | None = None,
    device: torch.device | None = None,
) -> Pruned:
    """A pruned copy of the teacher, in as many rounds as the section says.

    Where pruning needs no dreams (`section.needs_dreams`), it is to the bit what `prune` gives.

    Args:
        teacher: is not changed.
        dreams: what guided criteria look at, and what each round but the last recovers on.
        section: the criterion, the rounds, and the sparsity after the last one; auto: what `choose_sparsity` finds for
            one shot.
        recovery: how each round but the last ends. Where its start is auto, and solved layers could mend the student
            if all went at once (`mendable`), the weights that stay make up for those that go in every round
            (`made_up`); elsewhere each round trains anew. Measured on the example's ResNet-20, three rounds: at 75 %
            making up ends 0.6 points higher, at 90 % alike, at 95 % 1.5 lower.
        seed: of criteria that draw, and of the recoveries.
        report: is told how far the rounds are.
        checkpoint: rounds that are done are found here, an unfinished recovery goes on from its last epoch.
        device: default: the first GPU, or the CPU.

    Returns:
        The student as its last pruning left it, and the trials that chose its sparsity where the section did not.

    Raises:
        RecipeError: floors leave too little to remove, no sparsity keeps the promise, or epochs are asked for where
            nothing is trained.
    """
    if not isinstance(section, PruningBase):  # its sparsity is no number that rounds could come near
        return Pruned(prune(teacher, section, seed=seed, dreams=dreams, device=device, report=report))
    between = _between_rounds(section, recovery) if section.rounds > 1 else recovery
    scores: Scores | None = None
    if isinstance(section, ScoredSection):  # of the teacher: for choosing a sparsity, and for the first round
        scores = score(teacher, section, seed=seed, dreams=dreams, device=device, report=report)
    sparsity, choice = section.sparsity, None
    if sparsity == "auto":
        choice = choose_sparsity(teacher, dreams, section, seed=seed, scores=scores, device=device, report=report)
        sparsity = choice.sparsity
    targets = densities(1 - sparsity, section.rounds, section.schedule)
    whole = with_sparsity(section, sparsity)
    makes_up = section.rounds > 1 and isinstance(between, DistillationSection) and between.start == "auto"
    if makes_up:
        told = _in_round(report, 1, len(targets) - 1)
        makes_up = _mendable_at_once(teacher, dreams, whole, seed, scores, told, checkpoint, device)
        between = between if makes_up else between.model_copy(update={"start": "repaired"})
    student: Student | None = None
    notes: list[str] = []
    for number, density in enumerate(targets, start=1):
        # 1 - (1 - sparsity) is not always the sparsity to the bit, which can be worth a weight
        asked = whole if number == len(targets) else with_sparsity(section, 1 - density)
        pruned = prune(
            teacher, asked, seed=seed, dreams=dreams, start=student, scores=scores, device=device, report=report
        )
        scores = None  # a student that was trained since has others
        told = _in_round(report, number, len(targets) - 1)
        if student is not None and makes_up:
            pruned = made_up(teacher, student, pruned, dreams, report=told, checkpoint=checkpoint, device=device)
        if number == len(targets):
            return Pruned(pruned, choice, tuple(notes))
        result = recover(teacher, pruned, dreams, between, seed=seed, report=told, checkpoint=checkpoint, device=device)
        student = result.recovered
        notes += (f"round {number}: {note}" for note in result.notes)
    raise AssertionError("there is a last round")


def _mendable_at_once(
    teacher: Teacher,
    dreams: DreamSet,
    section: PruningSection,
    seed: int,
    scores: Scores | None,
    report: Report,
    checkpoint: Checkpoint | None,
    device: torch.device | None,
) -> bool:
    """Whether solved layers could mend the teacher if all its weights that are to go went now."""
    pruned = prune(teacher, section, seed=seed, dreams=dreams, scores=scores, device=device, report=report)
    return mendable(teacher, pruned, dreams, report=report, checkpoint=checkpoint, device=device)


def densities(final: float, rounds: int, schedule: str) -> list[float]:
    """The share of weights that is left after each round.

    Args:
        final: after the last round, in (0, 1).
        rounds: at least 1.
        schedule: geometric: each round keeps the same share of what it finds. cubic: sparsity nears its end as
            1 - (1 - t)³ does 1 (Zhu and Gupta, Eq. 1, arXiv 1710.01878), most of it while there is plenty to lose.
    """
    if schedule == "geometric":
        before = [final ** (number / rounds) for number in range(1, rounds)]
    else:
        before = [1 - (1 - final) * (1 - (1 - number / rounds) ** 3) for number in range(1, rounds)]
    return [*before, final]


def _between_rounds(section: PruningBase, recovery: RecoverySection) -> RecoverySection:
    if isinstance(recovery, DistillationSection):
        return recovery.model_copy(update={"epochs": section.round_epochs or recovery.epochs})
    if section.round_epochs is not None:
        raise RecipeError(
            f"pruning.round_epochs is {section.round_epochs}, and recovery.method is {recovery.method}",
            why="only distillation has a number of epochs to choose",
            now="leave pruning.round_epochs out, or set recovery.method to distillation",
        )
    return recovery


def _in_round(report: Report, number: int, recoveries: int) -> Report:
    def told(where: Progress) -> None:
        figures = {"round": number, "rounds": recoveries + 1, **where.figures}
        report(dataclasses.replace(where, stage="pruning", figures=figures))

    return told
