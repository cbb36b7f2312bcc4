"""Augmentation of dreams: each image shifted, mirrored and blended on its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augment(
    images: Tensor, targets: Tensor, *, jitter: int, flip: bool, mixup: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A fresh view of every image, and the classes it shows then.

    Args:
        images: shape (batch, channels, height, width), normalised space.
        targets: how much of each class an image shows; float32, shape (batch, classes).
        jitter: shift by up to this many pixels each way; what comes in from outside is 0, the mean colour.
        flip: mirror each with probability 1/2.
        mixup: blend each with another by a share from Beta(mixup, mixup); 0 is off.
        generator: on the CPU.

    Returns:
        Both in the shapes they came in. A blend shows the classes of both its images, each by its share
        (arXiv 1710.09412).
    """
    if flip or jitter:
        images = _shift_and_flip(images, jitter, flip, generator)
    return _blend(images, targets, mixup, generator) if mixup > 0 else (images, targets)


def _shift_and_flip(images: Tensor, jitter: int, flip: bool, generator: torch.Generator) -> Tensor:
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (jitter, jitter, jitter, jitter))
    top, left = torch.randint(0, 2 * jitter + 1, (2, batch, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = torch.arange(width).expand(batch, width)
    if flip:
        mirrored = torch.rand(batch, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    columns = columns + left
    device = images.device
    index = torch.arange(batch)[:, None, None, None].to(device)
    channel = torch.arange(channels)[None, :, None, None].to(device)
    return padded[index, channel, rows[:, None, :, None].to(device), columns[:, None, None, :].to(device)]


def _blend(images: Tensor, targets: Tensor, mixup: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    batch = len(images)
    # A Beta variate as a ratio of Gammas, because torch.distributions takes no generator
    shape = torch.full((2, batch), mixup)
    gammas = torch._standard_gamma(shape, generator=generator)
    share = (gammas[0] / gammas.sum(0).clamp_min(1e-12)).view(-1, 1, 1, 1).to(images)
    partner = torch.randperm(batch, generator=generator).to(images.device)
    of_target = share.view(-1, 1)
    return (
        share * images + (1 - share) * images[partner],
        of_target * targets + (1 - of_target) * targets[partner],
    )
