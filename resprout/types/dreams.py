"""Synthesized images: the groups that they are made in, the shards that travel, the set that is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from resprout.errors import ArtifactError


@dataclass(frozen=True)
class DreamGroup:
    """Dreams that were synthesized together, with a seed of their own.

    Args:
        index: which of all groups this is.
        images: float16, shape (n, channels, height, width), in normalised model-input space.
        targets: int64, shape (n,).
        held_out: whether they are never to be trained on.
        curves: per-iteration losses: name -> float32, shape (iterations,).
    """

    index: int
    images: Tensor
    targets: Tensor
    held_out: bool
    curves: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class DreamShard:
    """What one of several workers synthesized: some of the `num_groups` groups of a `DreamSet`."""

    groups: Sequence[DreamGroup]
    num_groups: int
    num_classes: int

    @property
    def num_images(self) -> int:
        return sum(len(group.images) for group in self.groups)


@dataclass(frozen=True)
class DreamSet:
    """Synthesized images and the classes they were synthesized for; or real ones that were put in their place.

    Args:
        images: float16, shape (n, channels, height, width), in **normalised model-input space**; the last
            `num_held_out` are never trained on, so that agreement measured on them means something.
        targets: int64, shape (n,).
        num_held_out: how many at the end are held out.
        num_classes: the number of classes that the targets are drawn from.
        curves: per-iteration losses, averaged over the groups: name -> float32, shape (iterations,).
        source: where real, labelled images were read from that took the place of dreams; empty where it is dreams.
        notes: what reading such images did, as of `LabelledImages`; not kept.
    """

    images: Tensor
    targets: Tensor
    num_held_out: int
    num_classes: int
    curves: Mapping[str, Tensor] = field(default_factory=dict)
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.targets.shape != self.images.shape[:1]:
            raise ArtifactError(
                f"dreams of shape {list(self.images.shape)} with targets of shape {list(self.targets.shape)}"
            )
        if not 0 <= self.num_held_out <= len(self.images):
            raise ArtifactError(f"{self.num_held_out} held-out dreams of {len(self.images)}")
        if not torch.isfinite(self.images).all():
            raise ArtifactError(
                "dreams hold NaN or infinity",
                why="no student can learn from them",
                now="lower synthesis.learning_rate",
            )

    @property
    def num_training(self) -> int:
        return len(self.images) - self.num_held_out

    @property
    def training(self) -> tuple[Tensor, Tensor]:
        """(images, targets) to train on."""
        return self.images[: self.num_training], self.targets[: self.num_training]

    @property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """(images, targets) to select and to judge on."""
        return self.images[self.num_training :], self.targets[self.num_training :]
