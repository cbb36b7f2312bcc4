"""How closely a network answers as its teacher does, and how often it is right: asked often, of many networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resprout.errors import ArtifactError
from resprout.evaluation.scores import agreement, kl_divergence, logits_on
from resprout.heldout import with_blends
from resprout.precision import frozen_copy, strict_float32
from resprout.types import DreamSet, InputSpec, LabelledImages, Teacher

BATCH_SIZE = 250


@dataclass(frozen=True)
class Judge:
    """What networks are asked, and what their teacher answers.

    Args:
        images: held-out dreams and their blends, float32, shape (n, channels, height, width), normalised space.
        answers: the teacher's logits, float32 on the CPU, shape (n, classes).
        device: where networks run.
    """

    images: Tensor
    answers: Tensor
    device: torch.device

    def __call__(self, network: nn.Module) -> tuple[float, float]:
        """(agreement with the teacher in [0, 1], mean KL(teacher || network) in nats), as evaluation measures them."""
        logits = _logits(network, self.images, self.device)
        return agreement(logits, self.answers), kl_divergence(logits, self.answers)


def judge_of(teacher: Teacher, dreams: DreamSet, device: torch.device) -> Judge:
    """A teacher's answers to the held-out dreams and their blends, to compare students with.

    Raises:
        ArtifactError: no dreams were held out, or they do not fit the teacher's input.
    """
    images, _ = dreams.held_out
    if not len(images):
        raise ArtifactError(
            "no dreams are held out",
            why="on those that a student was made with, agreement with its teacher says little",
            now="synthesize with synthesis.num_held_out above 0, 128 for example",
        )
    if tuple(images.shape[1:]) != tuple(teacher.info.input.shape):
        raise ArtifactError(
            f"dreams are {list(images.shape[1:])}, but the teacher takes {list(teacher.info.input.shape)}",
            now="synthesize dreams from this teacher",
        )
    asked = with_blends(images)
    return Judge(asked, _logits(teacher.network, asked, device), device)


def top1(network: nn.Module, data: LabelledImages, input: InputSpec, device: torch.device) -> float:
    """Accuracy on labelled images, in [0, 1]."""

    def normalised(pixels: Tensor) -> Tensor:
        return input.normalise(pixels.float() / 255)

    running = frozen_copy(network, torch.float32, device)
    with strict_float32():
        logits = torch.cat(list(logits_on(running, data.images, batch_size=BATCH_SIZE, prepare=normalised)))
    return float((logits.argmax(1) == data.labels).double().mean())


def _logits(network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    running = frozen_copy(network, torch.float32, device)
    with strict_float32():
        return torch.cat(list(logits_on(running, images, batch_size=BATCH_SIZE, prepare=Tensor.float)))
