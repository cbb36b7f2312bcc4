"""Which images an epoch sees, and how they are augmented.

Crops and flips only. Mixing images (mixup, cutmix) would train as well, but BatchNorm's running statistics would then
describe blends, and those statistics are what Resprout makes dreams from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from resprout.types import InputSpec

PADDING = 4


def prepare(images: Tensor, input: InputSpec) -> Tensor:
    """Normalise and pad a training set once, so that a batch is only an index operation.

    Args:
        images: uint8, shape (n, channels, height, width).
        input: its mean and std.

    Returns:
        bfloat16 (half the memory; the network runs in it anyway), normalised, padded by 4 zeros on each side.
    """
    normalised = input.normalise(images.float() / 255).to(torch.bfloat16)
    return F.pad(normalised, (PADDING,) * 4).contiguous()


def crop_and_flip(padded: Tensor, indices: Tensor, generator: torch.Generator) -> Tensor:
    """A batch of random crops, each mirrored with probability 1/2.

    Args:
        padded: what `prepare` returned.
        indices: int64, shape (batch,), on the CPU.
        generator: on the CPU, so that every device sees the same crops.

    Returns:
        float32, channels_last, shape (batch, channels, height, width): the size before padding.
    """
    batch, size = len(indices), padded.shape[-1] - 2 * PADDING
    top = torch.randint(0, 2 * PADDING + 1, (batch,), generator=generator)
    left = torch.randint(0, 2 * PADDING + 1, (batch,), generator=generator)
    mirrored = torch.rand(batch, generator=generator) < 0.5
    steps = torch.arange(size)
    rows = (top[:, None] + steps).to(padded.device)
    columns = (left[:, None] + torch.where(mirrored[:, None], size - 1 - steps, steps)).to(padded.device)
    channels = torch.arange(padded.shape[1], device=padded.device)
    images = indices.to(padded.device)
    crops = padded[images[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None]]
    return crops.float().contiguous(memory_format=torch.channels_last)


def resize(images: Tensor, size: int) -> Tensor:
    """Images at `size` x `size`, bilinear with antialiasing; the same tensor where they already are."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def choose(losses: Tensor, skip_probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which samples an epoch visits, in which order, and what each one's loss weighs.

    InfoBatch (arXiv 2303.04947): samples whose last loss is below the mean are skipped with a probability, and those of
    them that stay weigh 1 / (1 - probability), so that the expected gradient is that of all samples.

    Args:
        losses: each sample's last loss, shape (n,), on the CPU.
        skip_probability: in [0, 1); 0 visits all.
        generator: on the CPU.

    Returns:
        Indices in random order, int64, and a weight for every one of the n samples, float32.
    """
    weights = torch.ones(len(losses))
    keep = torch.ones(len(losses), dtype=torch.bool)
    if skip_probability:
        easy = losses < losses.mean()
        keep = ~(easy & (torch.rand(len(losses), generator=generator) < skip_probability))
        weights[easy] = 1 / (1 - skip_probability)
    kept = keep.nonzero().squeeze(1)
    return kept[torch.randperm(len(kept), generator=generator)], weights
