"""`sparsity: auto`: how many weights a teacher can spare and still be agreed with, found on dreams."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch

from resprout import precision
from resprout.errors import RecipeError
from resprout.judging import Judge, judge_of
from resprout.progress import Progress, Report, silent
from resprout.pruning import Scores, largest_sparsity, prune, score
from resprout.recipe import PruningBase, PruningSection, ScoredSection
from resprout.recovery import repair
from resprout.types import DreamSet, SparsityChoice, Teacher, Trial

DEFAULT_AGREEMENT = 0.9
STEPS = 200
"""A sparsity is chosen to 1 / STEPS: half a point."""
STRIDE = 10
"""Steps between the sparsities that are tried from above: 5 points."""
Chosen = TypeVar("Chosen", bound=PruningBase)


def choose_sparsity(
    teacher: Teacher,
    dreams: DreamSet,
    section: PruningSection,
    *,
    seed: int,
    scores: Scores | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> SparsityChoice:
    """The highest sparsity at which the pruned and repaired student still agrees with its teacher as promised.

    What is promised is of that student, measured as evaluation measures it: at the sparsity returned, after BatchNorm
    re-estimation on the training dreams and before any training, the agreement on the held-out dreams and their blends
    is at least `section.min_agreement`. It is no promise of what recovery gives. Distillation that starts from the
    repaired student and keeps the best has at most its KL there, in the precision that it computes in, but not always
    its agreement; from another start, or where the last epoch is kept, it has neither; nor has reconstruction. The
    dreams that choose are also those that judge, so that the chosen student's agreement is a little flattered.

    Agreement need not fall evenly. Sparsities are therefore tried from the top down, 5 points apart, until one keeps
    the promise; between it and the one above, which does not, bisection takes over. A higher sparsity that keeps the
    promise can be missed only where it lies between two of those 5-point marks that do not.

    Args:
        teacher: is not changed.
        dreams: in the teacher's normalised input space; some held out.
        section: with `sparsity: auto`.
        seed: of methods that draw.
        scores: as for `prune`: no sparsity changes them, so that all trials share them. Default: they are found once.
        device: default: the first GPU, or the CPU.
        report: is told each trial's sparsity and agreement.

    Returns:
        The sparsity, a multiple of 0.005, with what was promised and every trial, in the order in which they were made.

    Raises:
        RecipeError: no sparsity keeps the promise, the section has none to choose, or an exclusion matches nothing.
        ArtifactError: no dreams are held out, or they do not fit.
    """
    if not isinstance(section, PruningBase) or section.sparsity != "auto":
        raise RecipeError(
            f"pruning by {section.method}: there is no sparsity to choose",
            now="set pruning.sparsity to auto, with a method that has one",
        )
    # what is wrong at any sparsity is refused here
    most = largest_sparsity(teacher, section)
    device = device or precision.best_device()
    judge = judge_of(teacher, dreams, device)
    promised = DEFAULT_AGREEMENT if section.min_agreement is None else section.min_agreement
    if scores is None and isinstance(section, ScoredSection):
        scores = score(teacher, section, seed=seed, dreams=dreams, device=device, report=report)
    trials: list[Trial] = []

    def keeps(step: int, at_most: int) -> bool:
        sparsity = step / STEPS
        trial = _try(teacher, dreams, with_sparsity(section, sparsity), sparsity, judge, seed, scores)
        trials.append(trial)
        figures = {"sparsity": trial.sparsity, "agreement": trial.agreement}
        report(Progress("pruning", len(trials), len(trials) + at_most, "sparsities", figures))
        return trial.agreement >= promised

    found = highest_step(keeps, min(STEPS - 1, math.floor(most * STEPS)))
    if found == 0:
        raise _out_of_reach(promised, trials)
    return SparsityChoice(found / STEPS, promised, tuple(trials))


def highest_step(keeps: Callable[[int, int], bool], last: int = STEPS - 1) -> int:
    """The highest step that keeps a promise, found in few questions; 0 if none is found.

    Args:
        keeps: whether a step does; it is also told how many questions at most will follow.
        last: the highest step that there is.

    Returns:
        A step that keeps it, while the next one and all multiples of STRIDE above do not, or are none.
    """
    bisections = (STRIDE - 1).bit_length()
    marks = range(last - last % STRIDE, 0, -STRIDE)
    low = next((step for step in marks if keeps(step, step // STRIDE - 1 + bisections)), 0)
    high = min(low + STRIDE, last + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle, (high - low - 1).bit_length() - 1) else (low, middle)
    return low


def with_sparsity(section: Chosen, sparsity: float) -> Chosen:
    """The section with this sparsity in place of `auto`, and without the promise that went with it."""
    return section.model_copy(update={"sparsity": sparsity, "min_agreement": None})


def _try(
    teacher: Teacher,
    dreams: DreamSet,
    section: PruningSection,
    sparsity: float,
    judge: Judge,
    seed: int,
    scores: Scores | None,
) -> Trial:
    student = prune(teacher, section, seed=seed, dreams=dreams, scores=scores, device=judge.device)
    agreement, kl_divergence = judge(repair(student, dreams, judge.device).network)
    return Trial(sparsity, agreement, kl_divergence)


def _out_of_reach(promised: float, trials: list[Trial]) -> RecipeError:
    best = max(trials, key=lambda trial: trial.agreement)
    return RecipeError(
        f"pruning.sparsity auto: at none does the pruned student agree with its teacher on {100 * promised:g} % of "
        f"the held-out dreams and their blends; the best of {len(trials)} tried is "
        f"{100 * best.agreement:.1f} %, at {100 * best.sparsity:g} %",
        why="pruning.min_agreement asks for that before recovery, of BatchNorm re-estimated on dreams alone",
        now="lower pruning.min_agreement, choose another pruning.method, or give a sparsity",
    )
