from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from resprout.pruning import prune
from resprout.recipe import DistillationSection, GlobalMagnitudeSection, LampSection
from resprout.recovery import made_up, recover, repair
from resprout.recovery.start import settle
from resprout.types import DreamSet, PruningMask, Student, Teacher

AUTO = DistillationSection()


def pruned(teacher: Teacher, sparsity: float) -> Student:
    return prune(teacher, GlobalMagnitudeSection(sparsity=sparsity), seed=0)


def settled(teacher: Teacher, student: Student, dreams: DreamSet, section: DistillationSection) -> DistillationSection:
    return settle(section, teacher, student, repair(student, dreams), dreams)


def test_a_little_damage_is_mended_and_much_is_trained_anew(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    little = settled(tiny_teacher, pruned(tiny_teacher, 0.2), tiny_dreams, AUTO)
    assert (little.start, little.learning_rate, little.keep_batchnorm_frozen) == ("reconstructed", 1e-3, True)
    much = settled(tiny_teacher, pruned(tiny_teacher, 0.985), tiny_dreams, AUTO)
    assert (much.start, much.learning_rate, much.keep_batchnorm_frozen) == ("repaired", 3e-3, False)


def test_what_solving_does_not_mend_is_trained_anew(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resprout.recovery.start.MENDABLE_AGREEMENT", 0.0)
    section = DistillationSection(epochs=1, precision="float32")
    for sparsity, expected in ((0.2, ("reconstructed", 1e-3, True)), (0.985, ("repaired", 3e-3, False))):
        used = recover(tiny_teacher, pruned(tiny_teacher, sparsity), tiny_dreams, section, seed=0).section
        assert isinstance(used, DistillationSection)
        assert (used.start, used.learning_rate, used.keep_batchnorm_frozen) == expected
    asked_for = section.model_copy(update={"start": "reconstructed"})
    used = recover(tiny_teacher, pruned(tiny_teacher, 0.985), tiny_dreams, asked_for, seed=0).section
    assert isinstance(used, DistillationSection)
    assert used.start == "reconstructed"


def test_a_student_that_was_trained_before_is_trained_on(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    student = pruned(tiny_teacher, 0.2)
    student.network.get_parameter("layer1.0.conv1.weight").mul_(1.0001)  # pruned weights stay 0
    section = settled(tiny_teacher, student, tiny_dreams, AUTO)
    assert (section.start, section.learning_rate, section.keep_batchnorm_frozen) == ("pruned", 1e-3, True)

    with torch.no_grad():
        student.network.get_buffer("layer1.0.bn1.running_mean").add_(1e-6)
    section = settled(tiny_teacher, student, tiny_dreams, AUTO)
    assert (section.start, section.learning_rate, section.keep_batchnorm_frozen) == ("repaired", 3e-3, False), (
        "its statistics are its own: it was trained anew"
    )

    broken = pruned(tiny_teacher, 0.985)
    with torch.no_grad():
        for name, kept in broken.mask.keep.items():
            broken.network.get_parameter(name).copy_(0.01 * kept)
    section = settled(tiny_teacher, broken, tiny_dreams, AUTO)
    assert (section.start, section.learning_rate, section.keep_batchnorm_frozen) == ("repaired", 3e-3, False)


def test_what_goes_is_made_up_for_while_most_answers_stay(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    brief = DistillationSection(epochs=1, precision="float32")
    before = recover(tiny_teacher, pruned(tiny_teacher, 0.3), tiny_dreams, brief, seed=0).recovered
    images = tiny_dreams.held_out[0].float()

    def lost(sparsity: float) -> Student:
        return prune(tiny_teacher, LampSection(sparsity=sparsity), seed=0, start=before)

    def distance(student: Student) -> float:
        with torch.no_grad():
            return float((student.network(images) - before.network(images)).square().mean())

    little = lost(0.6)
    made = made_up(tiny_teacher, before, little, tiny_dreams)
    assert distance(made) < 0.8 * distance(little)
    weights = dict(made.network.named_parameters())
    assert all((weights[name][~kept] == 0).all() for name, kept in little.mask.keep.items())

    nearly_all = lost(0.985)
    assert made_up(tiny_teacher, before, nearly_all, tiny_dreams) is nearly_all


def test_where_no_dream_is_held_out_the_others_are_asked(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    dreams = replace(tiny_dreams, num_held_out=0)
    assert settled(tiny_teacher, pruned(tiny_teacher, 0.2), dreams, AUTO).start == "reconstructed"
    assert settled(tiny_teacher, pruned(tiny_teacher, 0.985), dreams, AUTO).start == "repaired"


def test_a_network_without_a_layer_to_solve_is_repaired(tiny_teacher: Teacher, tiny_dreams: DreamSet) -> None:
    student = replace(pruned(tiny_teacher, 0.2), mask=PruningMask({}))
    assert settled(tiny_teacher, student, tiny_dreams, AUTO).start == "repaired"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"start": "reconstructed"}, ("reconstructed", 1e-3, True)),
        ({"start": "pruned"}, ("pruned", 3e-3, False)),
        ({"start": "reconstructed", "keep_batchnorm_frozen": False}, ("reconstructed", 1e-3, False)),
        ({"start": "repaired", "learning_rate": 0.02}, ("repaired", 0.02, False)),
    ],
)
def test_what_the_section_says_itself_stays(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, fields: dict[str, object], expected: tuple[str, float, bool]
) -> None:
    section = settled(tiny_teacher, pruned(tiny_teacher, 0.2), tiny_dreams, DistillationSection.model_validate(fields))
    assert (section.start, section.learning_rate, section.keep_batchnorm_frozen) == expected


def test_a_recovery_says_how_it_was_done_so_that_it_can_be_done_again(
    tiny_teacher: Teacher, tiny_dreams: DreamSet
) -> None:
    student = pruned(tiny_teacher, 0.2)
    section = DistillationSection(epochs=1, precision="float32")
    first = recover(tiny_teacher, student, tiny_dreams, section, seed=0)
    assert isinstance(first.section, DistillationSection)
    assert first.section.start == "reconstructed"
    again = recover(tiny_teacher, student, tiny_dreams, first.section, seed=0)
    assert again.section == first.section
    assert again.metrics == first.metrics
