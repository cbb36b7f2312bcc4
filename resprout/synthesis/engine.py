"""The loop that turns noise into dreams: gradient descent on images through a frozen network.

What makes it fast: the network runs in bfloat16, channels last where it can, with frozen weights (no weight
gradients), BatchNorm statistics take one pass each way (`resprout.batchnorm`), an iteration is one launch on a GPU
(`resprout.recording`), and the loop never waits for the device: losses stay on it, and are read ten times a group, for
the progress line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resprout.precision import repeatable
from resprout.recording import Recorded
from resprout.synthesis import pyramid

Objective = Callable[[Tensor], Mapping[str, Tensor]]
Watch = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Descent:
    """How images are optimised.

    Args:
        iterations: Adam steps.
        learning_rate: the peak step size, in the images' own units.
        betas: Adam's decay rates.
        cosine: bring the step size to 0 along half a cosine; otherwise it is constant.
        jitter: roll all images by up to this many pixels each way, anew in each iteration.
        flip: mirror all images in a random half of the iterations.
    """

    iterations: int
    learning_rate: float
    betas: tuple[float, float] = (0.5, 0.9)
    cosine: bool = True
    jitter: int = 0
    flip: bool = False


def descend(
    levels: Sequence[Tensor],
    objective: Objective,
    descent: Descent,
    *,
    bound: float,
    generator: torch.Generator,
    watch: Watch = lambda iteration, losses: None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Minimise the sum of an objective's terms over images.

    Args:
        levels: the starting point, a pyramid (`resprout.synthesis.pyramid`) whose composition is the images, float32,
            shape (batch, channels, height, width), in whatever units; a single level is the images themselves.
        objective: weighted loss terms (scalars) of a batch of augmented images.
        descent: how.
        bound: images are kept within ± this after each step.
        generator: on the CPU; draws the augmentations, all of them before the loop.
        watch: is called about ten times with the iteration and its losses.

    Returns:
        The images (detached) and each term's curve, float32, shape (iterations,), on the CPU.
    """
    parameters = [level.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for level in levels]
    device = parameters[0].device
    optimizer = _optimizer(parameters, descent)
    rows, columns = (places.to(device) for places in _sources(levels[0].shape[2:], descent, generator))
    latest: dict[str, Tensor] = {}

    def step(row: Tensor, column: Tensor) -> None:
        images = pyramid.compose(parameters)
        source = (row[:, None] * len(column) + column).flatten()
        terms = objective(images.flatten(2).index_select(2, source).view_as(images))
        if not latest:
            latest.update({name: torch.zeros((), device=device) for name in terms})
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        pyramid.project(parameters, bound)
        for name, term in terms.items():
            latest[name].copy_(term.detach())

    curves = torch.zeros(0)
    recorded = Recorded(step, device)
    with repeatable():
        for iteration in range(descent.iterations):
            _set_step_size(optimizer, descent, iteration / descent.iterations)
            recorded(rows[iteration], columns[iteration])
            if not iteration:
                curves = torch.zeros(descent.iterations, len(latest), device=device)
            curves[iteration] = torch.stack(list(latest.values()))
            if (iteration + 1) % max(1, descent.iterations // 10) == 0:
                watch(iteration + 1, dict(zip(latest, curves[iteration].tolist(), strict=True)))
    by_name = curves.cpu().unbind(1)
    return pyramid.compose(parameters).detach(), dict(zip(latest, by_name, strict=True))


def _optimizer(parameters: list[Tensor], descent: Descent) -> torch.optim.Adam:
    device = parameters[0].device
    if device.type == "cuda":  # a recorded iteration reads its step size from there
        rate = torch.tensor(descent.learning_rate, device=device)
        return torch.optim.Adam(parameters, lr=rate, betas=descent.betas, fused=True, capturable=True)
    return torch.optim.Adam(parameters, lr=descent.learning_rate, betas=descent.betas, fused=True)


def _set_step_size(optimizer: torch.optim.Adam, descent: Descent, done: float) -> None:
    if descent.cosine:
        size, group = _cosine(descent.learning_rate, done), optimizer.param_groups[0]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(size)
        else:
            group["lr"] = size


def _cosine(peak: float, done: float) -> float:
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def _sources(size: Sequence[int], descent: Descent, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For each iteration, from which row and column of an image its view's come: rolled, and perhaps mirrored.

    Args:
        size: (height, width).

    Returns:
        int64, shapes (iterations, height) and (iterations, width).
    """
    height, width = size
    shifts = torch.randint(-descent.jitter, descent.jitter + 1, (descent.iterations, 2), generator=generator)
    mirrored = (torch.rand(descent.iterations, 1, generator=generator) < 0.5) & descent.flip
    columns = torch.arange(width).expand(descent.iterations, width)
    columns = torch.where(mirrored, width - 1 - columns, columns)
    return (torch.arange(height) - shifts[:, :1]) % height, (columns - shifts[:, 1:]) % width
