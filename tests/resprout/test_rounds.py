"""Pruning in rounds, each recovered before the next."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from resprout import recipe
from resprout.auto_sparsity import with_sparsity
from resprout.checkpoints import FolderCheckpoint
from resprout.errors import RecipeError
from resprout.progress import Progress
from resprout.pruning import prune
from resprout.recipe import (
    BlockSection,
    DistillationSection,
    LampSection,
    PruningSection,
    ReconstructionSection,
    RecoverySection,
)
from resprout.recovery import mendable, recover
from resprout.rounds import densities, prune_on_dreams
from resprout.types import DreamSet, Student, Teacher

SHORT = DistillationSection(epochs=3, batch_size=64, start="repaired", precision="float32")
AUTO = DistillationSection(epochs=1, precision="float32")
ROUNDS = LampSection(sparsity=0.8, rounds=3, round_epochs=2, schedule="geometric")


@given(final=some.floats(0.001, 0.999), rounds=some.integers(1, 32))
def test_every_round_keeps_the_same_share_of_what_it_finds(final: float, rounds: int):
    left = densities(final, rounds, "geometric")
    assert len(left) == rounds
    assert left[-1] == final, "the last to the bit: it is what was asked for"
    shares = [after / before for before, after in zip([1.0, *left], left, strict=False)]
    assert all(math.isclose(share, final ** (1 / rounds)) for share in shares)


@given(final=some.floats(0.001, 0.999), rounds=some.integers(1, 32))
def test_cubic_rounds_remove_less_each_time(final: float, rounds: int):
    left = densities(final, rounds, "cubic")
    assert left[-1] == final, "the last to the bit: it is what was asked for"
    removed = [before - after for before, after in zip([1.0, *left], left, strict=False)]
    assert all(later < earlier for earlier, later in pairwise(removed))
    assert min(removed) > 0


def test_cubic_rounds_are_those_of_gradual_pruning():
    """s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n Δt))³, Eq. 1 of arXiv 1710.01878, with s_i = 0 and three steps."""
    sparsities = [0.9 + (0 - 0.9) * (1 - step / 3) ** 3 for step in (1, 2, 3)]
    assert [1 - density for density in densities(1 - 0.9, 3, "cubic")] == pytest.approx(sparsities)


NEED_NO_DREAMS = [
    *(
        {"method": method, "sparsity": 0.8}
        for method in ("global_magnitude", "layer_magnitude", "lamp", "erk", "random")
    ),
    {"method": "synflow", "sparsity": 0.6},
    {"method": "semi_structured"},
    {"method": "block", "sparsity": 0.5, "shape": [2, 2]},
    {"method": "structured", "macs_ratio": 0.5, "round_to": 1},
]


@pytest.mark.parametrize("fields", NEED_NO_DREAMS, ids=lambda fields: fields["method"])
@pytest.mark.parametrize("recovery", [SHORT, ReconstructionSection()], ids=["distillation", "reconstruction"])
def test_what_needs_no_dreams_is_pruned_alike_with_and_without_them(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, fields: dict[str, Any], recovery: RecoverySection
):
    asked = recipe.section("pruning", fields)
    assert not asked.needs_dreams
    alone = prune(tiny_teacher, asked, seed=3)
    with_dreams = prune_on_dreams(tiny_teacher, tiny_dreams, asked, recovery, seed=3)
    assert _same(alone, with_dreams.student)
    assert with_dreams.choice is None
    assert _channels(alone) == _channels(with_dreams.student)


def test_the_pruners_that_need_no_dreams_are_these():
    methods = {each.model_fields["method"].default for each in get_args(get_args(PruningSection)[0])}
    least = {"structured": {"macs_ratio": 0.5}}
    sections = [recipe.section("pruning", {"method": method, **least.get(method, {})}) for method in methods]
    needless = {section.method for section in sections if not section.needs_dreams}
    assert needless == {fields["method"] for fields in NEED_NO_DREAMS}


def test_one_round_removes_as_many_weights_as_one_shot_where_the_share_is_halfway_between_two(
    tiny_teacher: Teacher, tiny_dreams: DreamSet
):
    num_weights = tiny_teacher.network.get_parameter("conv1.weight").numel()
    halfway = [(count + 0.5) / num_weights for count in range(num_weights // 4, num_weights // 2)]
    # below a half, 1 - (1 - share) is not always the share to the bit
    share = next(share for share in halfway if round((1 - (1 - share)) * num_weights) != round(share * num_weights))
    asked = LampSection(sparsity=share, exclude=("layer*", "fc*"))
    at_once = prune(tiny_teacher, asked, seed=0)
    assert at_once.mask.num_weights == num_weights
    assert _same(at_once, prune_on_dreams(tiny_teacher, tiny_dreams, asked, SHORT, seed=0).student)


def test_epochs_of_rounds_that_there_are_not_are_no_error(tiny_teacher: Teacher, tiny_dreams: DreamSet):
    asked = LampSection(sparsity=0.8, round_epochs=2)
    in_one = prune_on_dreams(tiny_teacher, tiny_dreams, asked, ReconstructionSection(), seed=0).student
    assert _same(prune(tiny_teacher, asked, seed=0), in_one)


def test_rounds_end_at_the_asked_sparsity_and_never_bring_a_weight_back(tiny_teacher: Teacher, tiny_dreams: DreamSet):
    student = prune_on_dreams(tiny_teacher, tiny_dreams, ROUNDS, SHORT, seed=0).student
    assert student.mask.num_kept == student.mask.num_weights - round(0.8 * student.mask.num_weights)
    first = prune(tiny_teacher, LampSection(sparsity=1 - 0.2 ** (1 / 3)), seed=0).mask
    assert all((first.keep[name] | ~kept).all() for name, kept in student.mask.keep.items())
    weights = dict(student.network.named_parameters())
    assert all((weights[name][~kept] == 0).all() for name, kept in student.mask.keep.items())


def test_blocks_that_are_gone_stay_gone(tiny_teacher: Teacher, tiny_dreams: DreamSet):
    section = BlockSection(sparsity=0.6, rounds=2, round_epochs=1, shape=(2, 2), schedule="geometric")
    first = prune(tiny_teacher, section.model_copy(update={"sparsity": 1 - 0.4**0.5}), seed=0).mask
    mask = prune_on_dreams(tiny_teacher, tiny_dreams, section, SHORT, seed=0).student.mask
    assert all((first.keep[name] | ~kept).all() for name, kept in mask.keep.items())
    assert mask.sparsity == pytest.approx(0.6, abs=2 * 2 * 9 / mask.num_weights)


def test_later_rounds_look_at_the_student_and_not_at_the_teacher(tiny_teacher: Teacher, tiny_dreams: DreamSet):
    before = copy.deepcopy(tiny_teacher.network.state_dict())
    student = prune_on_dreams(tiny_teacher, tiny_dreams, ROUNDS, SHORT, seed=0).student
    at_once = prune(tiny_teacher, LampSection(sparsity=0.8), seed=0)
    assert any(not torch.equal(kept, at_once.mask.keep[name]) for name, kept in student.mask.keep.items())
    teacher, found = dict(tiny_teacher.network.named_parameters()), dict(student.network.named_parameters())
    assert any((found[name][kept] != teacher[name][kept]).any() for name, kept in student.mask.keep.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_teacher.network.state_dict().items())


def test_rounds_give_the_same_student_twice_and_say_how_far_they_are(tiny_teacher: Teacher, tiny_dreams: DreamSet):
    seen: list[Progress] = []
    once = prune_on_dreams(tiny_teacher, tiny_dreams, ROUNDS, SHORT, seed=0, report=seen.append).student
    again = prune_on_dreams(tiny_teacher, tiny_dreams, ROUNDS, SHORT, seed=0).student
    assert _same(once, again)
    epochs = [(at.figures["round"], at.done, at.total) for at in seen if at.done]
    assert epochs == [(1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2)]
    assert {at.stage for at in seen} == {"pruning"}


def test_a_recovery_between_rounds_that_diverges_is_told(tiny_teacher: Teacher, tiny_dreams: DreamSet):
    recovery = SHORT.model_copy(update={"optimizer": "sgd", "learning_rate": 1e20})
    pruned = prune_on_dreams(tiny_teacher, tiny_dreams, ROUNDS, recovery, seed=0)
    assert [note.partition(" in epoch")[0] for note in pruned.notes] == [
        "round 1: recovery diverged",
        "round 2: recovery diverged",
    ]
    assert all(note.endswith("lower recovery.learning_rate, which is 1e+20") for note in pruned.notes)
    assert all(bool(tensor.isfinite().all()) for tensor in pruned.student.network.state_dict().values())


@pytest.mark.parametrize(("start", "sparsity"), [("repaired", 0.8), ("auto", 0.6)])
def test_killed_in_the_second_round_it_ends_with_the_same_bytes(
    tmp_path: Path, tiny_teacher: Teacher, tiny_dreams: DreamSet, start: str, sparsity: float
):
    section = ROUNDS.model_copy(update={"sparsity": sparsity})
    recovery = SHORT.model_copy(update={"start": start})

    class _KilledError(Exception):
        pass

    def kill(at: Progress) -> None:
        if (at.figures["round"], at.unit, at.done) == (2, "epochs", 1):
            raise _KilledError

    checkpoint = FolderCheckpoint(tmp_path)
    whole = prune_on_dreams(tiny_teacher, tiny_dreams, section, recovery, seed=0).student
    with pytest.raises(_KilledError):
        prune_on_dreams(tiny_teacher, tiny_dreams, section, recovery, seed=0, report=kill, checkpoint=checkpoint)
    seen: list[Progress] = []
    resumed = prune_on_dreams(
        tiny_teacher, tiny_dreams, section, recovery, seed=0, report=seen.append, checkpoint=checkpoint
    ).student
    assert _same(whole, resumed)
    trained = [(at.figures["round"], at.done) for at in seen if not at.resumed and at.unit == "epochs"]
    assert trained == [(2, 2)], "all that was finished before is kept"


def test_what_goes_in_a_round_is_made_up_for_by_what_stays(tiny_teacher: Teacher, tiny_dreams: DreamSet):
    section = LampSection(sparsity=0.6, rounds=2, round_epochs=2)
    anew, on = (
        prune_on_dreams(
            tiny_teacher, tiny_dreams, section, SHORT.model_copy(update={"start": start, "keep": "last"}), seed=0
        ).student
        for start in ("repaired", "auto")
    )
    ended = [recover(tiny_teacher, each, tiny_dreams, AUTO, seed=0).section for each in (anew, on)]
    assert [section.start for section in ended if isinstance(section, DistillationSection)] == ["repaired", "pruned"]
    images = tiny_dreams.held_out[0].float()
    with torch.no_grad():
        theirs = tiny_teacher.network.eval()(images)
        distances = [float((each.network(images) - theirs).square().mean()) for each in (anew, on)]
    assert distances[1] < 0.5 * distances[0]


def test_what_solving_could_not_mend_at_once_is_trained_anew_in_every_round(
    tiny_teacher: Teacher, tiny_dreams: DreamSet
):
    section = LampSection(sparsity=0.985, rounds=2, round_epochs=2)
    first = prune(tiny_teacher, with_sparsity(section, 1 - densities(0.015, 2, "cubic")[0]), seed=0)
    assert mendable(tiny_teacher, first, tiny_dreams), "it is the end that decides"
    anew, auto = (
        prune_on_dreams(tiny_teacher, tiny_dreams, section, SHORT.model_copy(update={"start": start}), seed=0).student
        for start in ("repaired", "auto")
    )
    assert _same(anew, auto)


def test_epochs_are_refused_where_nothing_is_trained(tiny_teacher: Teacher, tiny_dreams: DreamSet):
    with pytest.raises(RecipeError, match=r"pruning\.round_epochs is 2, and recovery.method is reconstruction"):
        prune_on_dreams(tiny_teacher, tiny_dreams, ROUNDS, ReconstructionSection(), seed=0)


def test_rounds_can_be_recovered_by_solving_layers(tiny_teacher: Teacher, tiny_dreams: DreamSet):
    section = LampSection(sparsity=0.8, rounds=2)
    student = prune_on_dreams(tiny_teacher, tiny_dreams, section, ReconstructionSection(), seed=0).student
    assert student.mask.num_kept == student.mask.num_weights - round(0.8 * student.mask.num_weights)


def _channels(student: Student) -> dict[str, list[bool]]:
    plan = student.channels
    sides = {} if plan is None else {"outputs": plan.outputs, "inputs": plan.inputs}
    return {f"{side} {name}": kept.tolist() for side, layers in sides.items() for name, kept in layers.items()}


def _same(one: Student, other: Student) -> bool:
    tensors, others = one.network.state_dict(), other.network.state_dict()
    masks = all(torch.equal(kept, other.mask.keep[name]) for name, kept in one.mask.keep.items())
    return masks and all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
