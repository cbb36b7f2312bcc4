"""Labelled images: real ones, to test on and never to train on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LabelledImages:
    """A labelled test set.

    Args:
        images: uint8, shape (n, channels, height, width), in pixel space.
        labels: int64, shape (n,).
        class_names: one per class, in label order: the teacher's, or the set's own where the teacher has none.
        source: where it was read from.
        notes: what reading it did that its user may not expect, a sentence each: which class became which logit, what
            was passed over, what was done to images.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
