"""Which label was answered with which class: the pairs that occur, counted, so that many classes take no more room.

A confusion is int64, shape (pairs, 3): label, prediction, how many images, in the order of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor


def confusion_of(predictions: Tensor, labels: Tensor) -> Tensor:
    """The confusion of predictions, from int64 tensors of shape (n,)."""
    pairs, counts = torch.stack([labels, predictions], dim=1).unique(dim=0, return_counts=True)
    return torch.cat([pairs, counts[:, None]], dim=1)


def num_images(confusion: Tensor) -> int:
    """How many images were answered."""
    return int(confusion[:, 2].sum())


def num_right(confusion: Tensor) -> int:
    """How many of them with their label."""
    return int(confusion[confusion[:, 0] == confusion[:, 1], 2].sum())


def mistakes(confusion: Tensor) -> Tensor:
    """The pairs whose prediction is not the label."""
    return confusion[confusion[:, 0] != confusion[:, 1]]


def per_label(confusion: Tensor, num_classes: int) -> Tensor:
    """Images with each label, int64, shape (num_classes,)."""
    return _totals(confusion[:, 0], confusion, num_classes)


def per_prediction(confusion: Tensor, num_classes: int) -> Tensor:
    """Images answered with each class, int64, shape (num_classes,)."""
    return _totals(confusion[:, 1], confusion, num_classes)


def right_per_label(confusion: Tensor, num_classes: int) -> Tensor:
    """Images with each label that were answered with it, int64, shape (num_classes,)."""
    right = confusion[confusion[:, 0] == confusion[:, 1]]
    return _totals(right[:, 0], right, num_classes)


def as_matrix(confusion: Tensor, num_classes: int) -> Tensor:
    """The same as counts for every pair, shape (num_classes, num_classes), row = label: for few classes."""
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    matrix[confusion[:, 0], confusion[:, 1]] = confusion[:, 2]
    return matrix


def _totals(classes: Tensor, confusion: Tensor, num_classes: int) -> Tensor:
    return torch.zeros(num_classes, dtype=torch.int64).index_add_(0, classes, confusion[:, 2])
