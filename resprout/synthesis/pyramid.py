"""Images as a sum of resolutions, so that descent moves broad shapes and colours as readily as single pixels.

Adam gives every parameter a step of about the same size. Over single pixels this favours high frequencies: dreams
come out as grey, fine-grained patterns. Over the levels of a pyramid one step of a coarse level moves a whole
region, dreams get the spectrum of photographs, and BatchNorm statistics are matched in fewer iterations. (The
idea of descending in another basis than pixels is that of Olah et al., Feature Visualization, Distill 2017.)
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

FINEST_DEVIATION, COARSEST_DEVIATION = 0.3, 0.6


def noise(batch: int, shape: tuple[int, int, int], coarsest: int, generator: torch.Generator) -> list[Tensor]:
    """A random pyramid to start from.

    Args:
        batch: the number of images.
        shape: (channels, height, width) of an image.
        coarsest: sides are halved until the shorter one has at most this many pixels.
        generator: on the CPU.

    Returns:
        Levels, finest first, each half the size of the one before (rounded up): float32, shape
        (batch, channels, h, w). Coarser levels vary more, as in photographs.
    """
    channels, height, width = shape
    sizes = [(height, width)]
    while min(sizes[-1]) > coarsest:
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))  # type: ignore[arg-type]  # two sides give two
    deviations = torch.linspace(FINEST_DEVIATION, COARSEST_DEVIATION, len(sizes)).tolist()
    return [
        deviation * torch.randn(batch, channels, *size, generator=generator)
        for deviation, size in zip(deviations, sizes, strict=True)
    ]


def compose(levels: list[Tensor]) -> Tensor:
    """The images: each level enlarged to the next finer one's size (bilinear) and added to it.

    A single level is the images themselves.
    """
    images = levels[-1]
    for finer in reversed(levels[:-1]):
        rows, columns = (
            _enlargement(small, large, images.device)
            for small, large in zip(images.shape[2:], finer.shape[2:], strict=True)
        )
        images = finer + rows @ images @ columns.T
    return images


@torch.no_grad()
def project(levels: list[Tensor], bound: float) -> None:
    """Bring the images within ± a bound by changing the finest level alone, in place."""
    images = compose(levels)
    levels[0] += images.clamp(-bound, bound) - images


@lru_cache(maxsize=64)
def _enlargement(small: int, large: int, device: torch.device) -> Tensor:
    # Bilinear enlargement is linear and separable: two matrix products, whose gradients are matrix products too
    identity = torch.eye(small)[None]
    enlarged = functional.interpolate(identity, size=large, mode="linear", align_corners=False)
    return enlarged[0].T.contiguous().to(device)
