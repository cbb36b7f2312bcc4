"""Scores and costs are held against other libraries; the verdict against tables worked by hand."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from resprout import evaluation as stage
from resprout import figures, latency, models
from resprout.confusion import (
    as_matrix,
    confusion_of,
    mistakes,
    num_images,
    num_right,
    per_label,
    per_prediction,
    right_per_label,
)
from resprout.cost import count_weight_uses, model_cost
from resprout.errors import DatasetError
from resprout.evaluation import evaluate, percent, summary_rows, verdict
from resprout.evaluation.scores import agreement, kl_divergence
from resprout.masking import apply_mask
from resprout.precision import frozen_copy
from resprout.progress import Progress
from resprout.types import DreamSet, Evaluation, LabelledImages, ModelScore, PruningMask, Student, Teacher

CPU = torch.device("cpu")


@pytest.fixture
def students(tiny_teacher: Teacher) -> Mapping[str, Student]:
    """Two students: a random half, and all, of the teacher's first convolution."""
    generator = torch.Generator().manual_seed(0)
    name = next(name for name, value in tiny_teacher.network.named_parameters() if value.ndim == 4)
    shape = tiny_teacher.network.get_parameter(name).shape
    masks = {"pruned": torch.rand(shape, generator=generator) < 0.5, "recovered": torch.ones(shape, dtype=torch.bool)}
    made = {}
    for student, kept in masks.items():
        mask = PruningMask({name: kept})
        made[student] = Student(tiny_teacher.info, copy.deepcopy(tiny_teacher.network), mask)
        apply_mask(made[student].network, mask)
    return made


@pytest.fixture
def dreams(tiny_images: tuple[Tensor, Tensor]) -> DreamSet:
    images, labels = tiny_images
    return DreamSet(images[:40].half(), labels[:40], num_held_out=30, num_classes=4)


@pytest.fixture
def data(tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor]) -> LabelledImages:
    images, labels = tiny_images
    pixels = (tiny_teacher.info.input.to_pixels(images[100:170]) * 255).round().to(torch.uint8)
    return LabelledImages(pixels, labels[100:170], tiny_teacher.info.class_names)


def test_scores_are_those_of_a_plain_forward_pass_and_torchmetrics(
    tiny_teacher: Teacher, students: Mapping[str, Student], dreams: DreamSet, data: LabelledImages
) -> None:
    result = evaluate(tiny_teacher, students, dreams, data)
    assert [score.name for score in result.scores] == ["teacher", "pruned", "recovered"]
    assert (result.num_test_images, result.num_held_out_dreams) == (70, 30)
    inputs = (data.images / 255 - torch.tensor([0.5, 0.45, 0.4]).view(3, 1, 1)) / torch.tensor([0.25, 0.2, 0.3]).view(
        3, 1, 1
    )
    predictions = students["pruned"].network(inputs).argmax(1)
    score = result.score("pruned")
    assert score.top1 == pytest.approx(float(multiclass_accuracy(predictions, data.labels, 4, average="micro")))
    assert score.confusion is not None
    assert torch.equal(as_matrix(score.confusion, 4), multiclass_confusion_matrix(predictions, data.labels, 4))
    held_out = dreams.images[10:].float()
    before = torch.stack([held_out[index - 1] for index in range(30)])
    held_out = torch.cat([held_out, 0.7 * held_out + 0.3 * before, (held_out + before) / 2])
    ours, teachers = (
        n(held_out).double().softmax(1).numpy() for n in (students["pruned"].network, tiny_teacher.network)
    )
    assert score.agreement == (ours.argmax(1) == teachers.argmax(1)).mean()
    assert score.kl_divergence == pytest.approx((teachers * np.log(teachers / ours)).sum(1).mean(), rel=1e-4)


def test_the_teacher_and_an_unpruned_student_agree_with_it_fully(
    tiny_teacher: Teacher, students: Mapping[str, Student], dreams: DreamSet, data: LabelledImages
) -> None:
    result = evaluate(tiny_teacher, students, dreams, data)
    for name in ("teacher", "recovered"):
        assert (result.score(name).agreement, result.score(name).kl_divergence) == (1.0, 0.0)
    assert result.score("recovered").top1 == result.score("teacher").top1 > 0.5
    assert result.score("pruned").kl_divergence > 0


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_no_result(
    tiny_teacher: Teacher, students: Mapping[str, Student], dreams: DreamSet, data: LabelledImages, batch_size: int
) -> None:
    expected = evaluate(tiny_teacher, students, dreams, data)
    result = evaluate(tiny_teacher, students, dreams, data, batch_size=batch_size)
    for one, other in zip(expected.scores, result.scores, strict=True):
        assert (one.top1, one.agreement) == (other.top1, other.agreement)
        assert torch.equal(one.confusion, other.confusion)
        assert one.kl_divergence == pytest.approx(other.kl_divergence, rel=1e-5, abs=1e-9)
    assert expected.costs == result.costs


def test_without_data_and_dreams_there_are_still_costs(
    tiny_teacher: Teacher, students: Mapping[str, Student], dreams: DreamSet
) -> None:
    lines: list[Progress] = []
    result = evaluate(tiny_teacher, students, replace(dreams, num_held_out=0), report=lines.append)
    assert set(result.costs) == {"teacher", "pruned", "recovered"}
    for score in result.scores:
        assert (score.top1, score.confusion, score.agreement, score.kl_divergence) == (None, None, None, None)
    assert lines == []


def test_progress_counts_every_image_of_every_network_once(
    tiny_teacher: Teacher, students: Mapping[str, Student], dreams: DreamSet, data: LabelledImages
) -> None:
    lines: list[Progress] = []
    evaluate(tiny_teacher, students, dreams, data, batch_size=40, report=lines.append)
    assert [line.done for line in lines] == [40, 70, 110, 150, 160, 200, 230, 270, 310, 320, 360, 390, 430, 470, 480]
    assert {(line.stage, line.total, line.unit) for line in lines} == {("evaluation", 480, "images")}


def test_networks_are_left_as_they_were(
    tiny_teacher: Teacher, students: Mapping[str, Student], dreams: DreamSet
) -> None:
    networks = [tiny_teacher.network, *(student.network for student in students.values())]
    before = copy.deepcopy([network.state_dict() for network in networks])
    evaluate(tiny_teacher, students, dreams)
    for network, state in zip(networks, before, strict=True):
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name])
            assert value.stride() == state[name].stride()


def test_data_that_does_not_fit_is_refused(tiny_teacher: Teacher, dreams: DreamSet, data: LabelledImages) -> None:
    for broken, message in (
        (replace(data, images=data.images[:0], labels=data.labels[:0]), "is empty"),
        (replace(data, images=data.images[..., :8]), r"are \[3, 16, 8\], the teacher takes \[3, 16, 16\]"),
        (replace(data, labels=data.labels + 1), "labels reach from 1 to 4"),
    ):
        with pytest.raises(DatasetError, match=message):
            evaluate(tiny_teacher, {}, dreams, broken)


def test_a_student_cannot_take_the_teachers_name(tiny_teacher: Teacher, dreams: DreamSet) -> None:
    with pytest.raises(ValueError, match="teacher"):
        evaluate(tiny_teacher, {"teacher": Student(tiny_teacher.info, tiny_teacher.network, PruningMask({}))}, dreams)


def test_a_confusion_holds_the_pairs_that_occur_however_many_classes_there_are() -> None:
    confusion = confusion_of(torch.tensor([0, 21_840, 7, 7, 7]), torch.tensor([0, 0, 7, 7, 21_840]))
    assert confusion.tolist() == [[0, 0, 1], [0, 21_840, 1], [7, 7, 2], [21_840, 7, 1]]
    assert (num_images(confusion), num_right(confusion)) == (5, 3)
    assert mistakes(confusion)[:, 2].tolist() == [1, 1]
    found = [totals(confusion, 21_841).nonzero().flatten().tolist() for totals in (per_label, per_prediction)]
    assert found == [[0, 7, 21_840]] * 2
    assert right_per_label(confusion, 21_841)[[0, 7, 21_840]].tolist() == [1, 2, 0]
    assert as_matrix(torch.tensor([[1, 0, 4]]), 2).tolist() == [[0, 0], [4, 0]]


def test_agreement_and_divergence_by_hand() -> None:
    teacher = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
    network = torch.tensor([[0.4, 0.6], [0.5, 0.5]]).log() + 3.0  # logits are free up to a constant
    assert agreement(network, teacher) == 0.5
    expected = (0.8 * np.log(0.8 / 0.4) + 0.2 * np.log(0.2 / 0.6)) / 2
    assert kl_divergence(network, teacher) == pytest.approx(expected, rel=1e-6)


def test_costs_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.Flatten(), nn.Linear(24, 5))
    with torch.no_grad():
        network[0].weight[:3] = 0  # half of 6 * 2 * 3 * 3 = 108 weights, used at 2 x 2 positions
    cost = model_cost(network.eval(), (4, 4, 4), ["0.weight"])
    assert cost.parameters == 108 + 120 + 5
    assert cost.nonzero_parameters == cost.parameters - 54
    assert cost.dense_macs == 4 * 108 + 120
    assert cost.effective_macs == 4 * 54 + 120
    assert cost.sparsity == 0.5


def test_costs_of_shared_and_transposed_layers() -> None:
    shared = nn.Conv2d(2, 2, 1, bias=False)
    network = nn.Sequential(shared, shared, nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False)).eval()
    cost = model_cost(network, (2, 5, 5), [])
    assert cost.parameters == 4 + 24
    assert cost.dense_macs == 2 * 25 * 4 + 25 * 24
    assert cost.sparsity == 0.0


@pytest.mark.filterwarnings("ignore")  # fvcore traces with torch.jit, which is deprecated
@pytest.mark.parametrize("name", ["cifar_resnet20", "mobilenet_v2", "densenet121"])
def test_macs_are_those_of_torchs_and_fvcores_counters(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)  # it warns of every operator that it does not count
    network = models.build(name, num_classes=10).eval()
    image = torch.zeros(1, 3, 32, 32)
    macs = model_cost(network, (3, 32, 32), []).dense_macs
    with torch.no_grad():
        counted = FlopCountAnalysis(network, image).by_operator()
        with FlopCounterMode(display=False) as counter:
            network(image)
    assert macs == counted["conv"] + counted["linear"]
    assert 2 * macs == counter.get_total_flops()


def test_the_counters_hooks_are_gone_also_after_an_exception(tiny_teacher: Teacher) -> None:
    with pytest.raises(ZeroDivisionError), count_weight_uses(tiny_teacher.network):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in tiny_teacher.network.children())


def test_sparsity_is_measured_over_the_masks_weights_for_every_network(
    tiny_teacher: Teacher, students: Mapping[str, Student], dreams: DreamSet
) -> None:
    costs = evaluate(tiny_teacher, students, replace(dreams, num_held_out=0)).costs
    assert costs["pruned"].sparsity == students["pruned"].mask.sparsity > 0
    assert costs["teacher"].sparsity == costs["recovered"].sparsity == 0
    assert costs["pruned"].dense_macs == costs["teacher"].dense_macs == costs["teacher"].effective_macs
    removed = students["pruned"].mask.num_weights - students["pruned"].mask.num_kept
    assert costs["teacher"].effective_macs - costs["pruned"].effective_macs == 16 * 16 * removed


def evaluation(**top1: float | None) -> Evaluation:
    scores = tuple(ModelScore(name, None, None, share) for name, share in top1.items())
    return Evaluation(scores, {}, 1000, 0, ("a", "b"))


@pytest.mark.parametrize(
    ("teacher", "pruned", "repaired", "recovered", "expected"),
    [
        (0.921, 0.672, 0.879, 0.914, "24.2 of the 24.9 points that pruning cost are back"),
        (0.9214, 0.6716, 0.88, 0.914, "24.2 of the 24.9 points that pruning cost are back"),  # as the table rounds
        (0.9, 0.1, 0.5, 0.9, "All 80.0 points that pruning cost are back"),
        (0.9, 0.1, 0.5, 0.913, "All 80.0 points that pruning cost are back, and 1.3 more"),
        (0.9, 0.5, 0.5, 0.5, "None of the 40.0 points that pruning cost are back"),
        (0.9, 0.5, 0.4, 0.3, "Recovery made it worse: pruning cost 40.0 points, and recovery 20.0 more"),
        (
            *(0.9, 0.5, 0.8, 0.7),
            "20.0 of the 40.0 points that pruning cost are back, while re-estimating BatchNorm alone brought back 30.0",
        ),
        (
            *(0.9, 0.5, 0.8, 0.4),
            "Recovery made it worse: pruning cost 40.0 points, and recovery 10.0 more, "
            "while re-estimating BatchNorm alone brought back 30.0",
        ),
        (
            *(0.9, 0.896, 0.9, 0.9),
            "Pruning cost next to nothing (0.4 points), and the recovered network ends level with the teacher",
        ),
        (0.9, 0.9, 0.9, 0.87, "Pruning cost nothing, and the recovered network ends 3.0 points below the teacher"),
        (0.9, 0.91, 0.9, 0.912, "Pruning cost nothing, and the recovered network ends 1.2 points above the teacher"),
    ],
)  # fmt: skip
def test_the_verdict_on_top1(teacher: float, pruned: float, repaired: float, recovered: float, expected: str) -> None:
    result = evaluation(teacher=teacher, pruned=pruned, repaired=repaired, recovered=recovered)
    assert verdict(result) == f"{expected}; training was given dreams only."


def by_agreement(pruned: float, recovered: float) -> Evaluation:
    shares = {"teacher": 1.0, "pruned": pruned, "recovered": recovered}
    return Evaluation(tuple(ModelScore(name, share, 0.1) for name, share in shares.items()), {}, 0, 128, ("a", "b"))


def test_the_verdict_without_data_is_about_agreement() -> None:
    assert verdict(by_agreement(0.68, 0.963)) == (
        "28.3 of the 32.0 points of agreement with the teacher on held-out dreams that pruning cost are back; "
        "training was given dreams only."
    )
    assert verdict(by_agreement(1.0, 1.0)) == (
        "Pruning cost nothing (measured as agreement with the teacher on held-out dreams), "
        "and the recovered network ends level with the teacher; training was given dreams only."
    )


def test_the_verdict_does_not_call_real_images_dreams_nor_the_run_data_free() -> None:
    on_images = replace(by_agreement(0.68, 0.963), images_source="s3://bucket/train")
    assert verdict(on_images) == (
        "28.3 of the 32.0 points of agreement with the teacher on held-out images that pruning cost are back; "
        "real images were learnt from, not dreams."
    )
    lossless = replace(by_agreement(1.0, 1.0), images_source="s3://bucket/train")
    assert verdict(lossless).endswith("level with the teacher; real images were learnt from, not dreams.")
    assert "on held-out images |" in figures.markdown_of(on_images)


def test_the_verdict_says_when_there_is_none() -> None:
    nothing = verdict(evaluation(teacher=None, pruned=None, recovered=None))
    assert nothing == "Nothing was measured: there was no labelled test set, and no dreams were held out."
    assert verdict(evaluation(teacher=0.9, pruned=0.5)).startswith("There is nothing to compare")


def test_networks_that_do_not_answer_alike_are_not_called_level() -> None:
    level = evaluation(teacher=0.9, pruned=0.9, recovered=0.9)
    apart = replace(level, scores=tuple(replace(score, agreement=0.031) for score in level.scores))
    assert verdict(apart) == (
        "Top-1 hardly fell, and yet the recovered network agrees with its teacher on only 3.1 % of held-out dreams: "
        "they do not answer alike; training was given dreams only."
    )


def test_classes_that_the_teacher_does_not_name_are_called_as_the_test_set_calls_them(
    tiny_teacher: Teacher, dreams: DreamSet, data: LabelledImages
) -> None:
    names = ("ape", "bee", "cat", "dog")
    info = replace(tiny_teacher.info, class_names=("0", "1", "2", "3"))
    called = replace(data, class_names=names)
    assert evaluate(replace(tiny_teacher, info=info), {}, dreams, called).class_names == names
    assert evaluate(replace(tiny_teacher, info=info), {}, dreams).class_names == info.class_names
    given = replace(info, numbers_are_names=True)
    assert evaluate(replace(tiny_teacher, info=given), {}, dreams, called).class_names == info.class_names


def test_summary_rows_leave_out_the_teachers_agreement_with_itself() -> None:
    scores = (ModelScore("teacher", 1.0, 0.0, 0.921), ModelScore("repaired", 0.894, 0.2, 0.879))
    rows = summary_rows(Evaluation(scores, {}, 10, 10, ("a", "b")))
    assert [(row.label, percent(row.top1), percent(row.agreement)) for row in rows] == [
        ("teacher", "92.1 %", ""),
        ("BatchNorm repaired", "87.9 %", "89.4 %"),
    ]


def test_every_network_runs_where_it_is_asked_to(
    tiny_teacher: Teacher,
    students: Mapping[str, Student],
    dreams: DreamSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[torch.device] = []

    def spying(network: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        asked.append(device)
        return frozen_copy(network, dtype, CPU)

    for module in (stage, latency):
        monkeypatch.setattr(module, "frozen_copy", spying)
        monkeypatch.setattr(module, "best_device", lambda: pytest.fail("a device was given"))
    monkeypatch.setattr(latency, "latency_ratio", lambda *runs: 1.0)
    measured = evaluate(tiny_teacher, students, dreams, latency_batch_size=2, device=CPU).latency
    assert measured is not None
    assert measured.device == "cpu"
    assert asked == [CPU] * (3 + 2), "each network once, and those that are timed"
