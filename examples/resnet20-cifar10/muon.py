"""Muon with normalised filters, for convolution weights.

Written from the description by Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): the
momentum of a weight matrix is replaced by the nearest (semi-)orthogonal matrix, found by a few Newton-Schulz
iterations, so that every direction of the matrix learns at the same rate. Each weight tensor is kept at a fixed norm;
BatchNorm makes a network blind to that norm, and a fixed one makes the learning rate mean the same in every layer.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# The quintic a x + b x^3 + c x^5 of the description: its iterates push singular values in (0, 1] to about 1.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(weight: Tensor, iterations: int = 3) -> Tensor:
    """A matrix with the singular vectors of `weight` and singular values near 1, by Newton-Schulz iterations.

    Args:
        weight: shape (outputs, ...); everything after the first dimension is flattened into columns.
        iterations: three bring all but the smallest singular values into about [0.5, 1.3].

    Returns:
        A tensor of `weight`'s shape, float32.
    """
    matrix = weight.reshape(len(weight), -1).float()
    tall = matrix.shape[0] > matrix.shape[1]
    if tall:
        matrix = matrix.T
    matrix = matrix / (matrix.norm() + 1e-7)
    first, third, fifth = QUINTIC
    for _ in range(iterations):
        gram = matrix @ matrix.T
        matrix = first * matrix + (third * gram + fifth * gram @ gram) @ matrix
    orthogonal: Tensor = matrix.T if tall else matrix
    return orthogonal.reshape(weight.shape)


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov), orthogonalised, on weights held at norm sqrt(outputs).

    Args:
        parameters: convolution weights, shape (outputs, inputs, height, width).
        learning_rate: of an update whose singular values are near 1.
        momentum: in [0, 1).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update of every parameter from its gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.mul_(group["momentum"]).add_(parameter.grad)
                parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                update = orthogonalise(parameter.grad.add(momentum, alpha=group["momentum"]))
                parameter.add_(update, alpha=-group["lr"])
