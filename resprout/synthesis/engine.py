"""The loop that turns noise into dreams: gradient descent on images through a frozen network.

What makes it fast: the network runs in bfloat16 and channels_last with frozen weights (no weight
gradients), BatchNorm statistics take one pass each way (`resprout.batchnorm`), and the loop never waits for
the device: losses stay on it, and are read ten times a group, for the progress line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resprout.synthesis import pyramid

Objective = Callable[[Tensor], Mapping[str, Tensor]]
Watch = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Descent:
    """How images are optimised.

    Args:
        iterations: Adam steps.
        learning_rate: the peak step size, in normalised input space.
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
    lower: Tensor,
    upper: Tensor,
    generator: torch.Generator,
    watch: Watch = lambda iteration, losses: None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Minimise the sum of an objective's terms over images.

    Args:
        levels: the starting point, a pyramid (`resprout.synthesis.pyramid`) whose composition is the images, float32,
            shape (batch, channels, height, width), normalised space; a single level is the images themselves.
        objective: weighted loss terms (scalars) of a batch of augmented images.
        descent: how.
        lower, upper: bounds of the images, broadcastable to them; kept after each step.
        generator: on the CPU; draws the augmentations, all of them before the loop.
        watch: is called about ten times with the iteration and its losses.

    Returns:
        The images (detached) and each term's curve, float32, shape (iterations,), on the CPU.
    """
    parameters = [level.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for level in levels]
    optimizer = torch.optim.Adam(parameters, lr=descent.learning_rate, betas=descent.betas, fused=True)
    shifts = torch.randint(-descent.jitter, descent.jitter + 1, (descent.iterations, 2), generator=generator).tolist()
    mirrored = (torch.rand(descent.iterations, generator=generator) < 0.5).tolist()
    names: list[str] = []
    curves = torch.zeros(0)
    for iteration in range(descent.iterations):
        if descent.cosine:
            optimizer.param_groups[0]["lr"] = _cosine(descent.learning_rate, iteration / descent.iterations)
        images = pyramid.compose(parameters)
        terms = objective(_augment(images, shifts[iteration], descent.flip and mirrored[iteration]))
        losses = torch.stack(list(terms.values()))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        pyramid.project(parameters, lower, upper)
        if not names:
            names = list(terms)
            curves = torch.zeros(descent.iterations, len(names), device=images.device)
        curves[iteration] = losses.detach()
        if (iteration + 1) % max(1, descent.iterations // 10) == 0:
            watch(iteration + 1, dict(zip(names, curves[iteration].tolist(), strict=True)))
    by_name = curves.cpu().unbind(1)
    return pyramid.compose(parameters).detach(), dict(zip(names, by_name, strict=True))


def _cosine(peak: float, done: float) -> float:
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def _augment(images: Tensor, shift: list[int], mirror: bool) -> Tensor:
    if shift != [0, 0]:
        images = torch.roll(images, shifts=shift, dims=(2, 3))
    return images.flip(3) if mirror else images
