"""Which classes the recovered network confuses, and which lost most against the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resprout.types import Evaluation

MAX_CLASSES = 25
"""A larger matrix cannot be read; its most confused pairs can."""
MAX_PAIRS = 20
MAX_LOSERS = 10
NUMBERED = 12
"""Cells carry their number up to this many classes."""


@dataclass(frozen=True)
class Cell:
    """One cell of the heat map: how it is shaded, in [0, 1], and what it says."""

    strength: float
    text: str
    title: str
    hit: bool


@dataclass(frozen=True)
class Pair:
    """Images of class `label` that were taken for `prediction`; `share` of that class, in [0, 1]."""

    label: str
    prediction: str
    count: int
    share: float


@dataclass(frozen=True)
class ClassChange:
    """A class's accuracy with the teacher and with the recovered network, in [0, 1], and its number of test images."""

    name: str
    teacher: float
    recovered: float
    count: int

    @property
    def points(self) -> float:
        """The change in percentage points, of the figures as shown."""
        return (round(1000 * self.recovered) - round(1000 * self.teacher)) / 10


@dataclass(frozen=True)
class Confusions:
    """A heat map where there are few classes, pairs where there are many, and the classes that lost most."""

    class_names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    pairs: tuple[Pair, ...]
    losers: tuple[ClassChange, ...]
    errors: int
    num_test_images: int


def confusions(evaluation: Evaluation) -> Confusions | None:
    """The recovered network's confusions; None without labelled data or without a recovered network."""
    found = {score.name: score.confusion for score in evaluation.scores if score.confusion is not None}
    recovered = found.get("recovered")
    if recovered is None or not int(recovered.sum()):
        return None
    names, total = evaluation.class_names, int(recovered.sum())
    few = len(names) <= MAX_CLASSES
    return Confusions(
        class_names=names,
        rows=heat_map(recovered, names) if few else (),
        pairs=() if few else confused_pairs(recovered, names),
        losers=losing_classes(found["teacher"], recovered, names) if "teacher" in found else (),
        errors=total - int(recovered.diagonal().sum()),
        num_test_images=total,
    )


def heat_map(confusion: Tensor, names: Sequence[str]) -> tuple[tuple[Cell, ...], ...]:
    """Cells in percent of their row; errors are shaded by the largest error, or one could not see them.

    Args:
        confusion: int64, shape (classes, classes), row = label.
        names: one per class.
    """
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    misses = shares.clone().fill_diagonal_(0)
    strengths = misses / misses.max().clamp(min=1e-9) + torch.diag(shares.diagonal())
    return tuple(
        tuple(
            Cell(
                strength=round(float(strengths[row, column]), 3),
                text=_cell_text(share) if len(names) <= NUMBERED and count else "",
                title=f"{label} taken for {prediction}: {count:,} ({100 * share:.1f} %)",
                hit=row == column,
            )
            for column, prediction in enumerate(names)
            for count, share in [(int(confusion[row, column]), float(shares[row, column]))]
        )
        for row, label in enumerate(names)
    )


def _cell_text(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.01 else "<1"


def confused_pairs(confusion: Tensor, names: Sequence[str]) -> tuple[Pair, ...]:
    """The `MAX_PAIRS` most frequent mistakes, most frequent first."""
    misses = confusion.clone().fill_diagonal_(0)
    order = misses.flatten().argsort(descending=True, stable=True)[:MAX_PAIRS].tolist()
    per_label = confusion.sum(1)
    pairs = [(*divmod(index, len(names)), int(misses.flatten()[index])) for index in order]
    return tuple(
        Pair(names[label], names[prediction], count, count / int(per_label[label]))
        for label, prediction, count in pairs
        if count
    )


def losing_classes(teacher: Tensor, recovered: Tensor, names: Sequence[str]) -> tuple[ClassChange, ...]:
    """The classes whose accuracy fell most from the teacher to the recovered network, worst first."""
    counts = recovered.sum(1)
    changes = [
        ClassChange(name, int(teacher[i, i]) / int(counts[i]), int(recovered[i, i]) / int(counts[i]), int(counts[i]))
        for i, name in enumerate(names)
        if int(counts[i])
    ]
    fallen = sorted((change for change in changes if change.points < 0), key=lambda change: change.points)
    return tuple(fallen[:MAX_LOSERS])
