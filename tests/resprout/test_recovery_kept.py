"""Which student recovery hands on: never one of no numbers, never one that is worse than what came in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resprout.checkpoints import FolderCheckpoint
from resprout.errors import DivergedError
from resprout.masking import apply_mask
from resprout.recipe import DistillationSection, PaperRecoverySection, ReconstructionSection
from resprout.recovery import PAPER, Recovery, recover
from resprout.recovery.reconstruction import reconstruct
from resprout.types import DreamSet, PruningMask, Student, Teacher

SHORT = DistillationSection(epochs=3, batch_size=32, start="repaired", precision="float32")
# its first epochs end with numbers, however large, and a later one does not
EXPLODING = SHORT.model_copy(update={"epochs": 8, "optimizer": "sgd", "learning_rate": 20.0, "warmup": 0.9})
GONE = SHORT.model_copy(update={"optimizer": "sgd", "learning_rate": 1e20})


@pytest.fixture
def little_hurt(tiny_teacher: Teacher) -> Student:
    """The tiny teacher with the smaller 20 % of each layer's weights gone."""
    network = copy.deepcopy(tiny_teacher.network)
    weights = {name: weight for name, weight in network.named_parameters() if weight.ndim > 1}
    mask = PruningMask({name: weight.abs() > weight.abs().quantile(0.2) for name, weight in weights.items()})
    apply_mask(network, mask)
    return Student(tiny_teacher.info, network, mask)


def is_the_same(one: Student, other: Student) -> bool:
    states = one.network.state_dict(), other.network.state_dict()
    return all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def holds_numbers(result: Recovery) -> bool:
    parts = (*result.recovered.network.state_dict().values(), *result.curves.values())
    figures = torch.tensor(list(result.metrics.values()))
    return all(bool(part.isfinite().all()) for part in (*parts, figures))


@pytest.mark.parametrize("held_out", [64, 0])
def test_the_last_epoch_of_numbers_is_kept_where_the_last_is(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, held_out: int
) -> None:
    dreams = replace(tiny_dreams, num_held_out=held_out)
    section = EXPLODING.model_copy(update={"keep": "last"})
    result = recover(tiny_teacher, tiny_student, dreams, section, seed=0)

    kept = int(result.metrics["kept_epoch"])
    assert 0 < kept < section.epochs - 1, "training stops at once"
    (note,) = result.notes
    assert note.startswith(f"recovery diverged in epoch {kept + 1} of 8: ")
    assert f"epoch {kept} is kept; lower recovery.learning_rate, which is 20" in note
    assert {len(curve) for curve in result.curves.values()} == {kept}
    assert result.metrics["train_kl"] == result.curves["train_kl"][-1]
    assert holds_numbers(result)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_where_no_epoch_ends_with_numbers_the_start_is_kept(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, keep: str
) -> None:
    result = recover(tiny_teacher, tiny_student, tiny_dreams, GONE.model_copy(update={"keep": keep}), seed=0)

    assert "diverged in epoch 1 of 3" in result.notes[0]
    assert "the start is kept" in result.notes[0]
    assert is_the_same(result.recovered, result.repaired)
    assert result.metrics["kept_epoch"] == 0
    assert holds_numbers(result)


def test_the_papers_recipe_says_how_its_step_could_be_smaller(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resprout.recovery.PAPER", PAPER.model_copy(update={"learning_rate": 1e20, "epochs": 1}))
    (note,) = recover(tiny_teacher, tiny_student, tiny_dreams, PaperRecoverySection(), seed=0).notes
    assert note.endswith("its step size is 1e+20; set recovery.method to distillation, where it can be lower")


def test_a_recovery_that_diverges_ends_with_the_same_bits_when_it_is_interrupted(
    tiny_teacher: Teacher,
    tiny_student: Student,
    tiny_dreams: DreamSet,
    tmp_path: Path,
    recovered_in_two_goes: Callable[..., tuple[Recovery, list[int]]],
) -> None:
    section = EXPLODING.model_copy(update={"keep": "last"})
    whole = recover(tiny_teacher, tiny_student, tiny_dreams, section, seed=0)
    resumed, _ = recovered_in_two_goes(section, FolderCheckpoint(tmp_path))

    assert is_the_same(resumed.recovered, whole.recovered)
    assert (resumed.notes, resumed.metrics) == (whole.notes, whole.metrics)


@pytest.mark.parametrize("section", [SHORT, GONE], ids=["learning", "diverging"])
def test_nothing_worse_than_the_student_that_came_is_handed_on(
    tiny_teacher: Teacher, little_hurt: Student, tiny_dreams: DreamSet, section: DistillationSection
) -> None:
    noise = torch.randn(2, *tiny_dreams.images.shape[1:], generator=torch.Generator().manual_seed(0)).half()
    images = torch.cat([noise, tiny_dreams.images[:62]])  # what is trained on says nothing of what is judged on
    dreams = DreamSet(images, tiny_dreams.targets[:64], num_held_out=62, num_classes=tiny_dreams.num_classes)
    result = recover(tiny_teacher, little_hurt, dreams, section, seed=0)

    assert is_the_same(result.recovered, little_hurt)
    assert not is_the_same(result.repaired, little_hurt)
    assert "the student as it was pruned" in result.notes[0]


def test_solved_layers_are_handed_on_only_where_they_are_better(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    trained = recover(tiny_teacher, tiny_student, tiny_dreams, SHORT, seed=0).recovered
    # pulls all the way back to the teacher's weights
    away = recover(tiny_teacher, trained, tiny_dreams, ReconstructionSection(ridge=1e6), seed=0)
    near = recover(tiny_teacher, tiny_student, tiny_dreams, ReconstructionSection(), seed=0)

    assert is_the_same(away.recovered, trained)
    assert "the student as it was pruned" in away.notes[0]
    assert not is_the_same(near.recovered, tiny_student)
    assert near.notes == ()


def test_the_epochs_come_first_where_they_are_no_worse(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    result = recover(tiny_teacher, tiny_student, tiny_dreams, SHORT, seed=0)

    assert result.notes == ()
    best = int(result.curves["held_out_kl"].argmin())
    assert result.metrics["kept_epoch"] == best + 1
    assert result.metrics["held_out_kl"] == result.curves["held_out_kl"][best]


def test_what_recovers_to_the_end_keeps_the_last(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    result = recover(tiny_teacher, tiny_student, tiny_dreams, PaperRecoverySection(), seed=0)

    assert result.metrics["kept_epoch"] == 15


def test_a_teacher_whose_answers_are_no_numbers_is_told(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    with torch.no_grad():
        list(tiny_teacher.network.parameters())[-1].fill_(torch.inf)
    with pytest.raises(DivergedError, match="recovery cannot start"):
        recover(tiny_teacher, tiny_student, tiny_dreams, SHORT.model_copy(update={"start": "pruned"}), seed=0)


def test_statistics_that_are_no_numbers_are_told(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    with torch.no_grad():
        next(tiny_student.network.parameters()).fill_(1e38)
    with pytest.raises(DivergedError, match="BatchNorm statistics re-estimated on dreams are no numbers"):
        recover(tiny_teacher, tiny_student, tiny_dreams, SHORT, seed=0)


def test_a_layer_that_cannot_be_solved_is_named(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
) -> None:
    apply_mask(tiny_student.network, tiny_student.mask)
    images = torch.full_like(tiny_dreams.images[:4].float(), torch.inf)
    with pytest.raises(DivergedError, match=r"the layer conv1 cannot be solved"):
        reconstruct(
            tiny_teacher.network,
            tiny_student.network,
            tiny_student.mask,
            images,
            ridge=1e-3,
            device=torch.device("cpu"),
            watch=lambda *_: None,
        )
