"""Trained classifiers, and everything that feeding and rebuilding them takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from resprout.classifier import classifier
from resprout.errors import UnsupportedModelError
from resprout.normalisation import problem_of
from resprout.wording import problem_of_name


@dataclass(frozen=True)
class InputSpec:
    """The images a network expects.

    Args:
        shape: (channels, height, width).
        mean: per channel, in [0, 1] pixel space; normalised = (pixel - mean) / std.
        std: per channel, above 0, in the same space: 1/255 where the network takes pixels in 0..255.

    Raises:
        UnsupportedModelError: these cannot be what was meant; the message has what probably was.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # where a manifest says it

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if problem := problem_of(self.shape, self.mean, self.std):
            raise UnsupportedModelError(
                f"input {problem.what}", why=problem.why, now=f"set teacher.input: {problem.now}"
            )

    def normalise(self, pixels: Tensor) -> Tensor:
        """From [0, 1] pixel space, shape (..., channels, height, width), to normalised model-input space."""
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)

    def to_pixels(self, images: Tensor) -> Tensor:
        """From normalised model-input space back to pixels, clamped to [0, 1]."""
        return (images * self._column(self.std, images) + self._column(self.mean, images)).clamp(0, 1)

    @staticmethod
    def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)


@dataclass(frozen=True)
class ModelInfo:
    """How to build a network and how to feed it; everything about a classifier but its weights.

    Args:
        architecture: a name that `resprout.models.build` knows.
        num_classes: the length of the logits, at least 2.
        input: what images it takes.
        class_names: one per class, in the order of the logits, in plain characters; "0", "1", … where nobody named any.
        arguments: keyword arguments of the architecture's constructor (JSON values).
        custom_code: the architecture is a user's own `package.module:function`, which the recipe allowed.
        channels_last: whether the network takes images laid out so, which is faster.
        bfloat16: whether it can compute in that.
        numbers_are_names: class names that are "0", "1", … were given, and are not for want of names.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    architecture: str
    num_classes: int
    input: InputSpec
    class_names: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    custom_code: bool = False
    channels_last: bool = True
    bfloat16: bool = True
    numbers_are_names: bool = False

    @property
    def named(self) -> bool:
        """Whether somebody named the classes."""
        return self.numbers_are_names or self.class_names != tuple(map(str, range(self.num_classes)))

    def __post_init__(self) -> None:
        for name in (self.architecture, *self.class_names):
            if problem := problem_of_name(name):
                raise UnsupportedModelError(
                    f"the name {name!a:.80} {problem}",
                    why="reports, tables and terminals show it",
                    now="give teacher.class_names, or teacher.architecture, in plain characters",
                )
        if self.num_classes < 2:
            raise UnsupportedModelError(f"a classifier needs at least 2 classes, not {self.num_classes}")
        if len(self.class_names) != self.num_classes:
            raise UnsupportedModelError(
                f"{len(self.class_names)} class names for {self.num_classes} classes",
                now="give teacher.class_names one name per class, or leave it out",
            )


@dataclass(frozen=True)
class Teacher:
    """A trained classifier, in evaluation mode, its weights frozen; it takes images and gives logits (`classifier`).

    `source` says where it came from, without secrets; `digest` is the sha256 of the weights file that was read;
    `notes` are the choices that fetching made, a sentence each.
    """

    info: ModelInfo
    network: nn.Module
    source: str = ""
    digest: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        classifier(self.network, self.info.num_classes, channels_last=self.info.channels_last)
