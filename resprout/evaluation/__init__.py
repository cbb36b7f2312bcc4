"""Evaluation: how close each network is to the truth and to the teacher, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from resprout.confusion import confusion_of, num_images, num_right
from resprout.cost import model_cost
from resprout.errors import DatasetError
from resprout.evaluation.scores import (
    agreement,
    kl_divergence,
    logits_on,
)
from resprout.evaluation.summary import SummaryRow, percent, summary_of, summary_rows, table, verdict
from resprout.heldout import with_blends
from resprout.latency import measure_latency
from resprout.overlap import refuse_overlap
from resprout.precision import best_device, frozen_copy, strict_float32
from resprout.progress import Progress, Report, silent
from resprout.types import (
    DreamSet,
    Evaluation,
    LabelledImages,
    Latency,
    ModelInfo,
    ModelScore,
    StoredSize,
    Student,
    Teacher,
)


def evaluate(
    teacher: Teacher,
    students: Mapping[str, Student],
    dreams: DreamSet,
    data: LabelledImages | None = None,
    *,
    batch_size: int = 250,
    sizes: Mapping[str, StoredSize] | None = None,
    latency_batch_size: int | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> Evaluation:
    """Judge the teacher and its students, in float32.

    Args:
        teacher, students: are not changed. The students' names become those of their scores, in their order.
        dreams: agreement and KL are measured on the held-out ones and on blends of them (`with_blends`); without
            any, they are None.
        data: a labelled test set in the teacher's input shape; without it, top-1 and confusion are None.
        batch_size: images per forward pass; changes speed and memory, never a result.
        sizes: what the networks' artifacts take, by name; handed on.
        latency_batch_size: images per forward pass that is timed, of the teacher and of the student called
            `recovered`; None times nothing, so that the same inputs give the same evaluation.
        device: default: the first GPU, or the CPU.
        report: is told after each pass how many images are done, over all networks.

    Returns:
        Scores with the teacher first, and every network's cost. Sparsity counts over the weights that the students'
        masks cover, for the teacher too; what a student lost with its channels counts as gone.

    Raises:
        DatasetError: the test set is empty, does not fit the teacher, or holds images that the students learnt from.
    """
    if "teacher" in students:
        raise ValueError("a student cannot be called 'teacher'")
    if data is not None:
        _check_fit(data, teacher.info)
        refuse_overlap(data, dreams, teacher.info.input)
    if latency_batch_size is not None and "recovered" not in students:
        raise ValueError("there is no student 'recovered' to time")
    device = device or best_device()
    networks = {"teacher": teacher.network, **{name: student.network for name, student in students.items()}}
    maskable = sorted({name for student in students.values() for name in student.mask.keep})
    of_teacher = dict(teacher.network.named_parameters())
    weights = sum(of_teacher[name].numel() for name in maskable)
    held_out = with_blends(dreams.held_out[0])
    tick = _ticker(len(networks) * ((0 if data is None else len(data.images)) + len(held_out)), report)
    scores: list[ModelScore] = []
    costs = {}
    teacher_logits: Tensor | None = None
    for name, network in networks.items():
        running = frozen_copy(network, torch.float32, device)
        costs[name] = model_cost(running, teacher.info.input.shape, maskable, of_weights=weights)
        with strict_float32():
            confusion = None if data is None else _confusion(running, data, teacher.info, batch_size, tick)
            logits = _dream_logits(running, held_out, batch_size, tick)
        teacher_logits = logits if teacher_logits is None else teacher_logits
        scores.append(_score(name, confusion, logits, teacher_logits))
    return Evaluation(
        scores=tuple(scores),
        costs=costs,
        num_test_images=0 if data is None else len(data.images),
        num_held_out_dreams=dreams.num_held_out,
        class_names=_class_names(teacher.info, data),
        sizes=dict(sizes or {}),
        latency=_latency(teacher, students, latency_batch_size, device),
        images_source=dreams.source,
    )


def _class_names(info: ModelInfo, data: LabelledImages | None) -> tuple[str, ...]:
    """The teacher's; where nobody named them, the test set's."""
    of_data = () if data is None else data.class_names
    return info.class_names if info.named or len(of_data) != info.num_classes else of_data


def _latency(
    teacher: Teacher, students: Mapping[str, Student], batch_size: int | None, device: torch.device
) -> Latency | None:
    if batch_size is None:
        return None
    networks, shape = (students["recovered"].network, teacher.network), teacher.info.input.shape
    return measure_latency(*networks, shape, batch_size=batch_size, device=device)


def _check_fit(data: LabelledImages, info: ModelInfo) -> None:
    if not len(data.images):
        raise DatasetError("the labelled test set is empty", now="leave it out to judge on held-out dreams alone")
    if tuple(data.images.shape[1:]) != info.input.shape:
        raise DatasetError(
            f"the labelled images are {list(data.images.shape[1:])}, the teacher takes {list(info.input.shape)}",
            now="read them with resprout.datasets.load_labelled, which brings them to the teacher's input shape",
        )
    if not 0 <= int(data.labels.min()) <= int(data.labels.max()) < info.num_classes:
        raise DatasetError(
            f"labels reach from {data.labels.min()} to {data.labels.max()}; "
            f"{info.num_classes} classes need 0 to {info.num_classes - 1}"
        )


def _ticker(total: int, report: Report) -> Callable[[int], None]:
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        report(Progress("evaluation", done, total, "images"))

    return tick


def _confusion(
    network: nn.Module, data: LabelledImages, info: ModelInfo, batch_size: int, tick: Callable[[int], None]
) -> Tensor:
    def normalised(pixels: Tensor) -> Tensor:
        return info.input.normalise(pixels.float() / 255)

    predictions = []
    for logits in logits_on(network, data.images, batch_size=batch_size, prepare=normalised):
        predictions.append(logits.argmax(1))
        tick(len(logits))
    return confusion_of(torch.cat(predictions), data.labels)


def _dream_logits(network: nn.Module, dreams: Tensor, batch_size: int, tick: Callable[[int], None]) -> Tensor | None:
    """Float32, shape (n, classes); None without dreams, which are normalised already."""
    answers = []
    for logits in logits_on(network, dreams, batch_size=batch_size, prepare=Tensor.float):
        answers.append(logits)
        tick(len(logits))
    return torch.cat(answers) if answers else None


def _score(name: str, confusion: Tensor | None, logits: Tensor | None, teacher_logits: Tensor | None) -> ModelScore:
    on_dreams = None if logits is None or teacher_logits is None else (logits, teacher_logits)
    return ModelScore(
        name=name,
        agreement=None if on_dreams is None else agreement(*on_dreams),
        kl_divergence=None if on_dreams is None else kl_divergence(*on_dreams),
        top1=None if confusion is None else num_right(confusion) / num_images(confusion),
        confusion=confusion,
    )


__all__ = ["SummaryRow", "evaluate", "percent", "summary_of", "summary_rows", "table", "verdict"]
