"""Which classes the recovered network confuses, and which lost most against the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resprout.confusion import as_matrix, mistakes, num_images, num_right, per_label, right_per_label
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
    if recovered is None or not num_images(recovered):
        return None
    names, total = evaluation.class_names, num_images(recovered)
    few = len(names) <= MAX_CLASSES
    return Confusions(
        class_names=names,
        rows=heat_map(as_matrix(recovered, len(names)), names) if few else (),
        pairs=() if few else confused_pairs(recovered, names),
        losers=losing_classes(found["teacher"], recovered, names) if "teacher" in found else (),
        errors=total - num_right(recovered),
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
    wrong = mistakes(confusion)
    order = wrong[:, 2].argsort(descending=True, stable=True)[:MAX_PAIRS]
    images = per_label(confusion, len(names))
    return tuple(
        Pair(names[label], names[prediction], count, count / int(images[label]))
        for label, prediction, count in wrong[order].tolist()
    )


def losing_classes(teacher: Tensor, recovered: Tensor, names: Sequence[str]) -> tuple[ClassChange, ...]:
    """The classes whose accuracy fell most from the teacher to the recovered network, worst first."""
    right = (right_per_label(of, len(names)).tolist() for of in (teacher, recovered))
    changes = [
        ClassChange(name, before / count, after / count, count)
        for name, before, after, count in zip(names, *right, per_label(recovered, len(names)).tolist(), strict=True)
        if count
    ]
    fallen = sorted((change for change in changes if change.points < 0), key=lambda change: change.points)
    return tuple(fallen[:MAX_LOSERS])
