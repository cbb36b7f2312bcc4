"""What criteria are given that look at a network and not only at its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resprout.errors import ArtifactError, RecipeError
from resprout.progress import Report
from resprout.pruning.candidates import Alive
from resprout.pruning.lamp import shares_left
from resprout.types import DreamSet, Teacher


@dataclass(frozen=True)
class Subject:
    """A network that is about to be pruned.

    Args:
        teacher: answers images.
        network: whose weights are chosen from: a copy of the teacher's, or of a student's; on `device`.
        alive: which of its maskable weights are not yet gone, on the CPU.
        is_teacher: whether the network is the teacher's, bit for bit.
        dreams: images, dreamt or real, with targets.
        seed: what labels and batches are drawn from.
    """

    teacher: Teacher
    network: nn.Module
    alive: Alive
    is_teacher: bool
    dreams: DreamSet | None
    seed: int
    device: torch.device
    report: Report

    def images(self, at_most: int | None) -> tuple[Tensor, Tensor]:
        """See `images_to_look_at`."""
        return images_to_look_at(self.teacher, self.dreams, at_most)

    @property
    def num_weights(self) -> int:
        """How many maskable weights there were at first."""
        return sum(left.numel() for left in self.alive.values())

    def weights(self) -> dict[str, Tensor]:
        """The maskable weights, by name, float64 on the network's device."""
        return {name: self.network.get_parameter(name).detach().double() for name in self.alive}


def images_to_look_at(teacher: Teacher, dreams: DreamSet | None, at_most: int | None = None) -> tuple[Tensor, Tensor]:
    """The first training dreams and their targets, spread over the classes as they are.

    Raises:
        RecipeError: there are none.
        ArtifactError: they do not fit the teacher.
    """
    if dreams is None or not dreams.num_training:
        raise RecipeError(
            "this way of pruning looks at images, and there are none",
            now="give it dreams, or choose one in the pruning section that looks at weights alone",
        )
    images, targets = (part[:at_most] for part in dreams.training)
    expected, found = tuple(teacher.info.input.shape), tuple(images.shape[1:])
    if expected != found:
        raise ArtifactError(
            f"dreams are {list(found)}, but the teacher takes {list(expected)}",
            now="synthesize dreams from this teacher",
        )
    if int(targets.max()) >= teacher.info.num_classes or int(targets.min()) < 0:
        raise ArtifactError(
            f"dreams have targets from {int(targets.min())} to {int(targets.max())}, "
            f"but the teacher knows classes 0 to {teacher.info.num_classes - 1}"
        )
    return images, targets


def comparable(scores: Mapping[str, Tensor], alive: Alive, normalisation: str) -> dict[str, Tensor]:
    """Scores that one threshold serves.

    Args:
        scores: parameter name -> not negative, in units of an energy (a squared magnitude).
        alive: which weights are left to choose from, on the CPU, of the same names; the others' scores do not count.
        normalisation: `none`, or `lamp`: each score as its share in its layer's that are not smaller.

    Returns:
        Parameter name -> float64 on the CPU, of the weight's shape.

    Raises:
        RecipeError: no score is above 0, or one is not finite.
    """
    left = {name: scores[name].detach().double().cpu() * alive[name] for name in alive}
    if not all(torch.isfinite(layer).all() for layer in left.values()):
        raise _no_scores("hold NaN or infinity")
    if not any(layer.any() for layer in left.values()):
        raise _no_scores("are all 0")
    if normalisation == "none":
        return left
    return {name: shares_left(layer.flatten()).view(layer.shape) for name, layer in left.items()}


def _no_scores(found: str) -> RecipeError:
    return RecipeError(
        f"the weights' scores {found}",
        why="they say nothing about which weights matter",
        now="look at more images, or set pruning.method to lamp, which looks at weights alone",
    )
