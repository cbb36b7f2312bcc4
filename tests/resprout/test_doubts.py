"""A teacher whose accuracy says nothing is told by it, with what to look at; any other is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from resprout import artifacts, gate
from resprout.artifacts.typed import flat_metrics
from resprout.confusion import confusion_of, num_images, num_right
from resprout.doubts import doubt_about, fitting_names, moved_classes
from resprout.evaluation import summary_of, verdict
from resprout.recipe import GateSection
from resprout.types import Evaluation, ModelScore

NAMES = ("ape", "bee", "cat", "dog", "elk")


def answered(labels: Tensor, predictions: Tensor, names: tuple[str, ...]) -> Evaluation:
    """All networks alike, and in full agreement."""
    confusion = confusion_of(predictions, labels)
    top1 = num_right(confusion) / num_images(confusion)
    scores = [ModelScore(name, 1.0, 0.0, top1, confusion) for name in ("teacher", "pruned", "recovered")]
    return Evaluation(scores, {}, len(labels), 128, names)


def noisy(labels: Tensor, accuracy: float, num_classes: int, seed: int = 0) -> Tensor:
    """Predictions that are right at this rate, and anything otherwise."""
    generator = torch.Generator().manual_seed(seed)
    anything = torch.randint(0, num_classes, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < accuracy, labels, anything)


def letters(count: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(count))


@pytest.mark.parametrize("accuracy", [1.0, 0.9, 0.6])
@pytest.mark.parametrize("order", [(1, 0, 2, 3, 4), (4, 0, 1, 2, 3), (2, 1, 3, 0, 4)])
def test_a_teacher_that_answers_in_another_order_is_told_with_the_order_that_fits(
    order: tuple[int, ...], accuracy: float
) -> None:
    """Class `order[k]` of the teacher is the set's class k."""
    labels = torch.arange(200) % 5
    predictions = torch.tensor(order)[noisy(labels, accuracy, 5)]
    told = answered(labels, predictions, NAMES)
    doubt = doubt_about(told)
    assert doubt is not None
    assert [doubt.class_names[order[label]] for label in range(5)] == list(NAMES)
    assert f"Set teacher.class_names: {json.dumps(doubt.class_names)}" in verdict(told)
    assert "points" not in verdict(told)
    assert summary_of(told)["fitting_class_names"] == list(doubt.class_names)


def test_folders_sorted_as_text_under_a_teacher_that_counts_are_told() -> None:
    names = tuple(sorted(map(str, range(12))))
    labels = torch.arange(12)
    doubt = doubt_about(answered(labels, torch.tensor([int(name) for name in names]), names))
    assert doubt is not None
    assert doubt.class_names == tuple(map(str, range(12)))


def test_an_order_of_a_thousand_classes_is_in_the_summary_and_not_in_the_sentence() -> None:
    names, order = letters(1000), torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5000) % 1000
    told = answered(labels, order[labels], names)
    assert "as the evaluation's summary.json has them" in verdict(told)
    assert len(verdict(told)) < 600
    fitting = summary_of(told)["fitting_class_names"]
    assert [fitting[int(order[label])] for label in range(1000)] == list(names)


def test_an_order_that_does_not_show_in_full_names_the_classes_that_do() -> None:
    labels = torch.arange(60) % 3  # of five classes
    told = answered(labels, labels + 2, NAMES)
    doubt = doubt_about(told)
    assert doubt is not None
    assert doubt.class_names == ()
    assert "cat for ape, dog for bee, elk for cat" in verdict(told)
    assert "fitting_class_names" not in summary_of(told)


def test_the_last_class_has_the_place_that_is_left() -> None:
    assert fitting_names({0: 1, 1: 2, 2: 3}, ("a", "b", "c", "d")) == ("d", "a", "b", "c")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("num_classes", "images", "accuracy"),
    [(2, 200, 0.4), (10, 100, 0.3), (10, 20, 0.7), (100, 100, 0.2), (1000, 50, 0.6), (5, 5, 0.9), (2, 4, 1.0)],
)
def test_a_teacher_that_is_merely_weak_or_hardly_tested_is_believed(
    num_classes: int, images: int, accuracy: float, seed: int
) -> None:
    labels = torch.arange(images) * num_classes // images
    predictions = noisy(labels, accuracy, num_classes, seed)
    assert doubt_about(answered(labels, predictions, letters(num_classes))) is None


def test_a_class_that_is_taken_for_its_neighbour_is_a_mistake_and_no_order() -> None:
    labels = torch.arange(100) % 10
    predictions = torch.where(labels == 3, 5, labels)
    assert doubt_about(answered(labels, predictions, letters(10))) is None
    assert moved_classes(confusion_of(torch.where(labels == 5, 3, predictions), labels), 10) == {3: 5, 5: 3}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("num_classes", "images"), [(2, 100), (4, 64), (10, 200), (1000, 500)])
def test_a_teacher_at_chance_is_told_and_gets_no_verdict(num_classes: int, images: int, seed: int) -> None:
    labels = torch.arange(images) % num_classes
    told = answered(labels, noisy(labels, 0.0, num_classes, seed), letters(num_classes))
    assert "no better than chance" in verdict(told)
    for suspect in ("teacher.input", "teacher.class_names", "test set"):
        assert suspect in verdict(told)
    assert "cost" not in verdict(told)


def test_one_answer_to_all_is_chance_also_where_one_class_is_most_of_the_set() -> None:
    labels = (torch.arange(100) >= 90).long()
    told = answered(labels, torch.zeros(100, dtype=torch.int64), ("healthy", "ill"))
    assert "right on 90.0 % of 100 labelled images, no better than chance" in verdict(told)
    assert "It answers healthy to 100.0 % of them." in verdict(told)


@pytest.mark.parametrize("seed", range(5))
def test_a_lopsided_set_and_a_set_of_one_class_are_believed(seed: int) -> None:
    lopsided = (torch.arange(100) >= 95).long()
    found = torch.where(torch.arange(100) == 97, 0, lopsided)
    found[seed] = 1
    assert doubt_about(answered(lopsided, found, ("healthy", "ill"))) is None
    one = torch.full((100,), 3)
    assert doubt_about(answered(one, noisy(one, 0.6, 10, seed), letters(10))) is None


def test_a_gate_on_the_drop_cannot_be_told_where_the_teacher_is_in_doubt(tmp_path: Path) -> None:
    labels = torch.arange(64) % 4
    for predictions in (noisy(labels, 0.0, 4), (labels + 1) % 4):
        artifacts.save_evaluation(answered(labels, predictions, letters(4)), tmp_path / "evaluation")
        metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
        checks = gate.judge(metrics, GateSection(max_top1_drop_points=1.0, min_agreement=0.9))
        assert [check.passed for check in checks] == [None, True]
        assert "the teacher itself is no better than chance" in checks[0].measured
        assert gate.passed(checks) is None


def test_a_teacher_that_is_believed_is_not_in_doubt() -> None:
    labels = torch.arange(64) % 4
    assert "teacher.in_doubt" not in flat_metrics(answered(labels, labels, letters(4)))
