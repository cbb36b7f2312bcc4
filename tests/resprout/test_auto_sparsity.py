"""`sparsity: auto` finds the highest sparsity that keeps its promise, and says when there is none."""

from __future__ import annotations

import copy
import dataclasses
import operator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resprout import artifacts, figures, provenance, recipe
from resprout.auto_sparsity import STEPS, STRIDE, choose_sparsity, highest_step, with_sparsity
from resprout.errors import ArtifactError, RecipeError
from resprout.evaluation import evaluate
from resprout.progress import Progress
from resprout.pruning import prune
from resprout.recipe import GlobalMagnitudeSection, PruningBase, ReconstructionSection
from resprout.recovery import repair
from resprout.rounds import prune_on_dreams
from resprout.types import DreamSet, SparsityChoice, Teacher, Trial

TEACHER = {"source": "nowhere"}


def auto(**fields: Any) -> PruningBase:
    section: PruningBase = recipe.section("pruning", {"method": "global_magnitude", "sparsity": "auto", **fields})
    return section


def asked(answers: set[int]) -> tuple[int, list[int]]:
    steps: list[int] = []
    promised: list[int] = []

    def keeps(step: int, at_most: int) -> bool:
        steps.append(step)
        promised.append(len(steps) + at_most)
        return step in answers

    found = highest_step(keeps)
    assert promised == sorted(promised, reverse=True), "no question more than was said"
    assert len(steps) <= promised[-1]
    return found, steps


@given(st.integers(0, STEPS - 1))
def test_where_agreement_falls_the_highest_step_is_found(last: int) -> None:
    found, steps = asked(set(range(1, last + 1)))
    assert found == last
    assert len(steps) == len(set(steps)) <= STEPS // STRIDE + 4


@given(st.sets(st.integers(1, STEPS - 1)))
def test_where_agreement_is_uneven_the_step_keeps_the_promise_and_no_mark_above_does(answers: set[int]) -> None:
    found, _ = asked(answers)
    assert found in answers | {0}
    assert found + 1 not in answers
    assert not answers & {step for step in range(STRIDE, STEPS, STRIDE) if step > found}


@pytest.mark.parametrize("method", ["global_magnitude", "lamp"])
def test_the_student_at_the_chosen_sparsity_keeps_the_promise_and_the_next_one_breaks_it(
    method: str, tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    section, before = auto(method=method, min_agreement=0.6), copy.deepcopy(tiny_teacher.network.state_dict())
    told: list[Progress] = []
    choice = choose_sparsity(tiny_teacher, tiny_dreams, section, seed=0, report=told.append)
    chosen = choice.sparsity

    def agreement_at(sparsity: float) -> float:
        student = repair(prune(tiny_teacher, with_sparsity(section, sparsity), seed=0), tiny_dreams)
        score = evaluate(tiny_teacher, {"repaired": student}, tiny_dreams).score("repaired").agreement
        assert score is not None
        return score

    measured = {trial.sparsity: trial.agreement for trial in choice.trials}
    assert agreement_at(chosen) == measured[chosen] >= 0.6
    above = choice.next_above
    assert above is not None
    assert above.sparsity == round(chosen + 1 / STEPS, 3)
    assert agreement_at(above.sparsity) == above.agreement < 0.6
    assert (choice.promised, choice.chosen.agreement) == (0.6, measured[chosen])
    assert [(line.figures["sparsity"], line.figures["agreement"]) for line in told] == list(measured.items())
    assert choice == choose_sparsity(tiny_teacher, tiny_dreams, section, seed=0)
    assert all(torch.equal(before[name], value) for name, value in tiny_teacher.network.state_dict().items())


@pytest.mark.parametrize(
    "criterion",
    [
        {"method": "taylor"},
        {"method": "fisher"},
        {"method": "teacher_guided", "training_steps": 10},
        {"method": "optimal_brain"},
    ],
    ids=operator.itemgetter("method"),
)
def test_a_criterion_looks_at_the_dreams_once_for_all_that_is_tried(
    criterion: dict[str, object], tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    section = auto(**criterion, min_agreement=0.5)
    told: list[Progress] = []
    pruned = prune_on_dreams(tiny_teacher, tiny_dreams, section, ReconstructionSection(), seed=0, report=told.append)

    choice = pruned.choice
    assert choice is not None
    assert len(choice.trials) > 2
    looked = [line.done for line in told if line.unit == "images"]
    assert looked == sorted(set(looked)), "once through the dreams, and not again"
    alone = prune(tiny_teacher, with_sparsity(section, choice.sparsity), seed=0, dreams=tiny_dreams)
    assert all(torch.equal(kept, alone.mask.keep[name]) for name, kept in pruned.student.mask.keep.items())
    agreement = (
        evaluate(tiny_teacher, {"repaired": repair(alone, tiny_dreams)}, tiny_dreams).score("repaired").agreement
    )
    assert agreement == choice.chosen.agreement, "as when it is pruned to that sparsity alone"


def test_no_more_is_tried_than_floors_let_go(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    section = auto(min_agreement=0.01, min_density=0.47)
    choice = choose_sparsity(tiny_teacher, tiny_dreams, section, seed=0)
    assert choice.sparsity == max(trial.sparsity for trial in choice.trials) == 0.525
    student = prune(tiny_teacher, with_sparsity(section, choice.sparsity), seed=0)
    assert min(student.mask.density().values()) >= 0.47


@given(st.integers(1, STEPS - 1), st.integers(0, STEPS - 1))
def test_the_last_step_is_found_where_all_keep_the_promise(last: int, keeps_until: int) -> None:
    assert highest_step(lambda step, _: step <= keeps_until, last) == min(last, keeps_until)


def test_a_promise_that_no_sparsity_keeps_is_refused_with_the_best(
    tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    # BatchNorm of another network's making: repairing it alone costs answers
    for module in tiny_teacher.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.add_(1.0)
    with pytest.raises(RecipeError, match=r"at none .* on 99\.9 % of(.|\n)*lower pruning.min_agreement"):
        choose_sparsity(tiny_teacher, tiny_dreams, auto(min_agreement=0.999), seed=0)


def test_what_was_tried_is_kept_with_the_student_and_comes_back(
    tmp_path: Path, tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    section = auto(min_agreement=0.3)
    pruned = prune_on_dreams(tiny_teacher, tiny_dreams, section, ReconstructionSection(), seed=0)
    assert pruned.choice == choose_sparsity(tiny_teacher, tiny_dreams, section, seed=0)
    assert pruned.student.mask.sparsity == pytest.approx(pruned.choice.sparsity, abs=1e-3)
    artifacts.save_student(pruned.student, tmp_path / "auto", about=figures.of_choice(pruned.choice))
    assert provenance.sparsity_choice(tmp_path / "auto") == pruned.choice
    assert artifacts.load_student(tmp_path / "auto").mask.num_kept == pruned.student.mask.num_kept


def test_a_sparsity_that_was_given_leaves_no_trace_of_a_choice(
    tmp_path: Path, tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    section = GlobalMagnitudeSection(sparsity=0.5)
    pruned = prune_on_dreams(tiny_teacher, tiny_dreams, section, ReconstructionSection(), seed=0)
    assert pruned.choice is None
    with_facts = artifacts.save_student(pruned.student, tmp_path / "facts", about=figures.of_choice(pruned.choice))
    assert with_facts == artifacts.save_student(pruned.student, tmp_path / "none")
    assert provenance.sparsity_choice(tmp_path / "facts") is None


def test_a_choice_that_its_trials_do_not_bear_out_is_refused() -> None:
    trials = (Trial(0.9, 0.5, 1.0), Trial(0.8, 0.7, 0.5))
    assert SparsityChoice(0.8, 0.7, trials).next_above == trials[0]
    assert SparsityChoice(0.9, 0.5, trials).next_above is None
    for sparsity, promised in [(0.85, 0.1), (0.9, 0.6)]:
        with pytest.raises(ArtifactError, match=f"no trial shows that a sparsity of {sparsity} keeps .* {promised}"):
            SparsityChoice(sparsity, promised, trials)


def test_without_held_out_dreams_or_without_auto_nothing_is_chosen(
    tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    with pytest.raises(ArtifactError, match="no dreams are held out"):
        choose_sparsity(tiny_teacher, dataclasses.replace(tiny_dreams, num_held_out=0), auto(), seed=0)
    with pytest.raises(RecipeError, match=r"global_magnitude: there is no"):
        choose_sparsity(tiny_teacher, tiny_dreams, GlobalMagnitudeSection(), seed=0)
    with pytest.raises(RecipeError, match="semi_structured: there is no"):
        choose_sparsity(tiny_teacher, tiny_dreams, recipe.section("pruning", {"method": "semi_structured"}), seed=0)
    with pytest.raises(RecipeError, match="matches no"):
        choose_sparsity(tiny_teacher, tiny_dreams, auto(exclude=["nothing"]), seed=0)


def test_pruning_refuses_a_sparsity_that_nobody_chose(tiny_teacher: Teacher) -> None:
    with pytest.raises(RecipeError, match="nothing has chosen it yet"):
        prune(tiny_teacher, auto(), seed=0)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"pruning": {"min_agreement": 0.9}}, r"min_agreement: is 0\.9, and pruning.sparsity is 0\.75"),
        ({"pruning": {"sparsity": "most"}}, "pruning.sparsity: input should be a valid number"),
        ({"pruning": {"sparsity": 1.5}}, r"pruning.sparsity: input should be less than 1, got 1\.5"),
        ({"pruning": {"method": "semi_structured", "min_agreement": 0.9}}, "has no sparsity to choose"),
        ({"pruning": {"sparsity": "auto"}, "synthesis": {"num_held_out": 0}}, "num_held_out is 0"),
    ],
)
def test_recipes_that_cannot_choose_are_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe.validate(recipe.Recipe, {"teacher": TEACHER, **sections}, "recipe x")


def test_an_automatic_sparsity_needs_dreams_and_survives_being_written() -> None:
    section = auto(method="erk", min_agreement=0.7)
    assert section.needs_dreams
    assert recipe.section("pruning", section.model_dump()) == section
    fixed = with_sparsity(section, 0.615)
    assert not fixed.needs_dreams
    assert recipe.section("pruning", fixed.model_dump()) == fixed
