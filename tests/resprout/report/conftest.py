"""A run's results to report on: the shapes are real, the figures are drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from resprout.confusion import num_images, num_right
from resprout.evaluation import verdict
from resprout.types import (
    BNStatistics,
    DreamSet,
    Evaluation,
    InputSpec,
    Latency,
    LayerStatistics,
    ModelCost,
    ModelInfo,
    ModelScore,
    PruningMask,
    StoredSize,
)

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TOP1 = {"teacher": 0.92, "pruned": 0.62, "repaired": 0.88, "recovered": 0.912}
AGREEMENT = {"teacher": 1.0, "pruned": 0.655, "repaired": 0.891, "recovered": 0.967}

Run = dict[str, Any]
MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """The arguments of `render` for a run of any size."""
    return _run


def _run(
    *,
    num_classes: int = 10,
    class_names: tuple[str, ...] | None = None,
    size: int = 32,
    num_layers: int = 19,
    num_dreams: int = 200,
    num_held_out: int = 40,
    labelled: bool = True,
) -> Run:
    generator = torch.Generator().manual_seed(num_classes + size)
    names = class_names or (CIFAR10 if num_classes == 10 else tuple(f"class {i}" for i in range(num_classes)))
    evaluation = _evaluation(names, num_held_out, labelled, generator)
    recipe = {
        "name": "demo",
        "seed": 0,
        "teacher": {"source": "examples/resnet20-cifar10"},
        "synthesis": {"method": "deep_inversion", "num_images": num_dreams, "iterations": 100},
        "pruning": {"method": "global_magnitude", "sparsity": 0.75, "exclude": ()},
        "recovery": {"method": "distillation", "epochs": 60},
        "evaluation": {"data": "examples/resnet20-cifar10/test2000" if labelled else None},
    }
    return {
        "evaluation": evaluation,
        "verdict": verdict(evaluation),
        "recipe": recipe,
        "info": ModelInfo(
            "cifar_resnet20", len(names), InputSpec((3, size, size), (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)), names
        ),
        "statistics": _statistics(num_layers, generator),
        "dreams": _dreams(num_dreams, num_held_out, len(names), size, generator),
        "mask": _mask(num_layers, generator),
        "recovery_curves": _recovery_curves(bool(num_held_out), generator),
        "provenance": _provenance(recipe),
        "title": "ResNet-20 on CIFAR-10",
    }


def _evaluation(names: tuple[str, ...], held_out: int, labelled: bool, generator: torch.Generator) -> Evaluation:
    per_class = max(4, 2000 // len(names))
    scores = []
    for name, top1 in TOP1.items():
        confusion = _confusion(len(names), per_class, top1, generator) if labelled else None
        scores.append(
            ModelScore(
                name=name,
                agreement=AGREEMENT[name] if held_out else None,
                kl_divergence=2 * (1 - AGREEMENT[name]) ** 1.5 if held_out else None,
                top1=None if confusion is None else num_right(confusion) / num_images(confusion),
                confusion=confusion,
            )
        )
    dense = ModelCost(269_722, 269_722, 40_551_040, 40_551_040, 0.0)
    pruned = ModelCost(269_722, 68_466, 40_551_040, 14_203_776, 0.75)
    return Evaluation(
        scores=scores,
        costs={"teacher": dense, "pruned": pruned, "repaired": pruned, "recovered": pruned},
        num_test_images=per_class * len(names) if labelled else 0,
        num_held_out_dreams=held_out,
        class_names=names,
        sizes={"teacher": StoredSize(1_108_556, 1_047_400), "recovered": StoredSize(1_153_774, 338_900)},
        latency=Latency(1.0234, batch_size=8, pairs=51, device="cpu"),
    )


def _confusion(classes: int, per_class: int, top1: float, generator: torch.Generator) -> Tensor:
    liking = torch.rand(classes, classes, generator=generator).pow(6).fill_diagonal_(0)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for label in range(classes):
        accuracy = min(1.0, max(0.0, top1 + 0.05 * float(torch.randn(1, generator=generator))))
        hits = round(per_class * accuracy)
        if hits < per_class:
            answers = torch.multinomial(liking[label], per_class - hits, replacement=True, generator=generator)
            confusion[label] += torch.bincount(answers, minlength=classes)
        confusion[label, label] += hits
    pairs = confusion.nonzero()
    return torch.cat([pairs, confusion[confusion != 0][:, None]], dim=1)


def _statistics(num_layers: int, generator: torch.Generator) -> BNStatistics:
    def layer(index: int) -> LayerStatistics:
        channels = 16 << (3 * index // num_layers)
        mean = torch.randn(channels, generator=generator) * 0.4 - 0.2
        variance = 0.02 + torch.rand(channels, generator=generator).pow(3) * (1 + index % 5)
        side = 32 >> (3 * index // num_layers)
        return LayerStatistics(
            f"layer{1 + 3 * index // num_layers}.{index // 2}.bn{1 + index % 2}", mean, variance, 1e-5, (side, side)
        )

    return BNStatistics(tuple(layer(index) for index in range(num_layers)))


def _dreams(count: int, held_out: int, classes: int, size: int, generator: torch.Generator) -> DreamSet:
    targets = torch.arange(count) % classes
    coarse = torch.randn(classes, 3, 4, 4, generator=generator)[targets]
    fine = torch.randn(count, 3, 12, 12, generator=generator)
    images = 0.9 * functional.interpolate(coarse, size=size, mode="bicubic") + 0.5 * functional.interpolate(
        fine, size=size, mode="bilinear"
    )
    steps = torch.arange(1, 101)
    curves = {
        "bn": 0.4 + 30 * torch.exp(-steps / 12) + 0.05 * torch.rand(100, generator=generator),
        "ce": 0.01 + 2.3 * torch.exp(-steps / 9) + 0.02 * torch.rand(100, generator=generator),
        "tv": 0.35 - 0.2 * torch.exp(-steps / 30),
    }
    return DreamSet(images.half(), targets, held_out, classes, curves)


def _mask(num_layers: int, generator: torch.Generator) -> PruningMask:
    keep = {"conv1.weight": torch.rand(16, 3, 3, 3, generator=generator) < 0.8}
    for index in range(num_layers):
        width = 16 << (3 * index // num_layers)
        density = 0.2 + 0.5 * float(torch.rand(1, generator=generator)) * (1 - index / num_layers)
        keep[f"layer{1 + 3 * index // num_layers}.{index // 2}.conv{1 + index % 2}.weight"] = (
            torch.rand(width, width, 3, 3, generator=generator) < density
        )
    return PruningMask(keep)


def _recovery_curves(judged: bool, generator: torch.Generator) -> dict[str, Tensor]:
    epochs = torch.arange(1, 61)
    curves = {
        "train_kl": 0.1 + 0.9 * torch.exp(-epochs / 10) + 0.03 * torch.rand(60, generator=generator),
        "train_features": 0.05 + 0.3 * torch.exp(-epochs / 15),
    }
    if judged:
        curves["held_out_kl"] = 0.02 + 0.25 * torch.exp(-epochs / 14) + 0.01 * torch.rand(60, generator=generator)
        curves["agreement"] = 0.967 - 0.08 * torch.exp(-epochs / 14) - 0.006 * torch.rand(60, generator=generator)
    curves["learning_rate"] = 1e-3 * (1 + torch.cos(torch.pi * epochs / 60))
    return curves


def _provenance(recipe: Run) -> Run:
    def record(name: str, kind: str, digit: str, inputs: list[Run], **more: Any) -> Run:
        return {"name": name, "kind": kind, "sha256": digit * 64, "inputs": inputs, **more}

    about = {"source": "examples/resnet20-cifar10", "digest": "9c" * 32}
    teacher = record("teacher", "teacher", "1", [], section=recipe["teacher"], seed=None, about=about)
    statistics = record("statistics", "statistics", "2", [teacher])
    dreams = record(
        "dreams", "dreams", "3", [teacher, statistics], section=recipe["synthesis"], seed=0, computed_on="NVIDIA L4"
    )
    dreams["resumed"] = ["a" * 64, "b" * 64]
    student = record("student", "student", "4", [teacher], section=recipe["pruning"], seed=0)
    makers = [teacher, student, dreams]
    inputs = [
        teacher,
        statistics,
        dreams,
        student | {"name": "pruned"},
        record("repaired", "student", "5", makers, section=recipe["recovery"], seed=0),
        record("recovered", "student", "6", makers, section=recipe["recovery"], seed=0),
    ]
    return record("evaluation", "evaluation", "7", inputs, section=recipe["evaluation"])
