"""Gradients of a loss to the weights that a mask may cover, over many batches: what criteria on images are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resprout.progress import Progress, Report, silent

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, the teacher's logits, labels) -> the mean over the batch, a scalar."""


@dataclass(frozen=True)
class Examples:
    """Images, and what they are scored by.

    Args:
        images: float32, shape (n, channels, height, width), normalised space.
        answers: the teacher's logits, float32, shape (n, classes).
        labels: int64, shape (n,).
    """

    images: Tensor
    answers: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: Tensor | slice) -> Examples:
        return Examples(self.images[chosen], self.answers[chosen], self.labels[chosen])


def squared_gradients(
    network: nn.Module,
    names: Iterable[str],
    examples: Examples,
    loss: Loss,
    *,
    batch_size: int,
    report: Report = silent,
) -> dict[str, Tensor]:
    """The mean over batches of the squared gradient to some parameters, with BatchNorm's running statistics.

    It knows the batch size: of batches of 1 it is the diagonal of the empirical Fisher matrix, of one batch of all
    images the square of the mean gradient. Batches are as even as can be, and weighted by their sizes.

    Args:
        network: is put into evaluation mode; which of its parameters require gradients is as it was afterwards.
        names: of parameters.
        examples: on the network's device; computed on in their order, so that the result repeats bit for bit.
        batch_size: images per gradient.
        report: is told how many images are done.

    Returns:
        Parameter name -> float64, of the parameter's shape.
    """
    parameters = {name: network.get_parameter(name) for name in names}
    required = {parameter: parameter.requires_grad for parameter in network.parameters()}
    square = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in parameters.items()}
    network.eval().requires_grad_(False)
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for part in torch.arange(len(examples)).tensor_split(math.ceil(len(examples) / batch_size)):
            batch = examples[slice(int(part[0]), int(part[-1]) + 1)]
            logits = network(batch.images)
            loss_of_batch = loss(logits, batch.answers, batch.labels)
            # an expert that none of these images is sent to has none
            found = torch.autograd.grad(loss_of_batch, list(parameters.values()), materialize_grads=True)
            for name, gradient in zip(parameters, found, strict=True):
                gradient = gradient.double()
                square[name].addcmul_(gradient, gradient, value=len(batch) / len(examples))
            report(Progress("pruning", int(part[-1]) + 1, len(examples), "images"))
    finally:
        for parameter, require in required.items():
            parameter.requires_grad_(require)
    return square


def damped(squares: Mapping[str, Tensor], power: float) -> dict[str, Tensor]:
    """Squared gradients to a power below 1, so that few extreme ones do not decide; 1 leaves them as they are."""
    return {name: square.pow(power) for name, square in squares.items()}
