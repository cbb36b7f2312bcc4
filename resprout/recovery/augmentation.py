"""Augmentation of dreams: each image shifted, mirrored, zoomed and turned on its own, then mixed with another.

The teacher answers every view anew, so that a view may be far from any photograph and still teach: distillation gains
from stronger views than training on labels bears (Beyer et al., arXiv 2106.05237).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from resprout.precision import moved


def augment(
    images: Tensor,
    targets: Tensor,
    *,
    jitter: int,
    flip: bool,
    mixup: float,
    zoom: float = 1.0,
    rotation: float = 0.0,
    cutmix: float = 0.0,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A fresh view of every image, and the classes it shows then.

    Args:
        images: shape (batch, channels, height, width), normalised space.
        targets: how much of each class an image shows; float32, shape (batch, classes).
        jitter: shift by up to this many pixels each way; what comes in from outside is 0, the mean colour.
        flip: mirror each with probability 1/2.
        mixup: blend each with another by a share from Beta(mixup, mixup); 0 is off.
        zoom: stretch each side by a factor from 1/zoom to zoom, log-uniformly; 1 is off. What comes in from outside
            mirrors what is inside, here and where it is turned.
        rotation: turn by up to this many degrees each way.
        cutmix: the probability that a batch is not blended, but each image gets a box of another one.
        generator: on the CPU.

    Returns:
        Both in the shapes they came in. A blend shows the classes of both its images, each by its share
        (arXiv 1710.09412), an image with a box of another by their areas (arXiv 1905.04899).
    """
    if flip or jitter:
        images = _shift_and_flip(images, jitter, flip, generator)
    if zoom > 1 or rotation:
        images = _zoom_and_turn(images, zoom, rotation, generator)
    if cutmix and float(torch.rand((), generator=generator)) < cutmix:
        return _paste(images, targets, generator)
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
    rows, columns = (moved(places, images.device) for places in (rows, columns + left))
    index = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[index, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _zoom_and_turn(images: Tensor, zoom: float, rotation: float, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    draws = 2 * torch.rand(3, batch, generator=generator) - 1
    across, down = zoom ** draws[0], zoom ** draws[1]
    angle = math.radians(rotation) * draws[2]
    # From where each pixel of the view comes, in units of half the width and half the height
    from_x = torch.stack([across * angle.cos(), -down * angle.sin() * (height / width), torch.zeros(batch)], dim=1)
    from_y = torch.stack([across * angle.sin() * (width / height), down * angle.cos(), torch.zeros(batch)], dim=1)
    sources = moved(torch.stack([from_x, from_y], dim=1), images.device).to(images.dtype)
    grid = functional.affine_grid(sources, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _blend(images: Tensor, targets: Tensor, mixup: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    batch = len(images)
    # A Beta variate as a ratio of Gammas, because torch.distributions takes no generator
    shape = torch.full((2, batch), mixup)
    gammas = torch._standard_gamma(shape, generator=generator)
    share = moved(gammas[0] / gammas.sum(0).clamp_min(1e-12), images.device).view(-1, 1, 1, 1).to(images.dtype)
    partner = moved(torch.randperm(batch, generator=generator), images.device)
    of_target = share.view(-1, 1)
    return (
        share * images + (1 - share) * images[partner],
        of_target * targets + (1 - of_target) * targets[partner],
    )


def _paste(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    batch, _, height, width = images.shape
    area, middle_y, middle_x = torch.rand(3, batch, 1, generator=generator)
    half = area.sqrt() / 2  # of a side, in units of the image's: the box has its shape
    rows = ((torch.arange(height) + 0.5) / height - middle_y).abs() < half
    columns = ((torch.arange(width) + 0.5) / width - middle_x).abs() < half
    box = moved((rows[:, :, None] & columns[:, None, :])[:, None], images.device)
    partner = moved(torch.randperm(batch, generator=generator), images.device)
    share = 1 - box.float().mean((1, 2, 3))[:, None]
    return torch.where(box, images[partner], images), share * targets + (1 - share) * targets[partner]
