"""The report's dream grid: small pictures, by class, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from resprout.types import DreamSet, InputSpec

MAX_IMAGES = 40
MAX_PER_CLASS = 20
THUMBNAIL = 64
"""Pixels: larger dreams are scaled down to this, so that the report stays small."""


@dataclass(frozen=True)
class DreamClass:
    """A class and the first dreams of it, as data URIs of PNG files."""

    name: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class DreamGrid:
    """Dreams by class; `pixelated` when they are shown larger than they are."""

    classes: tuple[DreamClass, ...]
    pixelated: bool

    @property
    def num_images(self) -> int:
        return sum(len(group.images) for group in self.classes)


def dream_grid(dreams: DreamSet, spec: InputSpec, class_names: tuple[str, ...]) -> DreamGrid:
    """The first few dreams of each class, or of evenly spread classes where there are many; none is picked by hand."""
    present = sorted(set(dreams.targets.tolist()))
    count = min(len(present), MAX_IMAGES)
    chosen = [present[index * len(present) // count] for index in range(count)]
    per_class = min(MAX_PER_CLASS, MAX_IMAGES // count) if count else 0
    groups = []
    for target in chosen:
        members = torch.nonzero(dreams.targets == target).flatten()[:per_class]
        pixels = spec.to_pixels(dreams.images[members].float())
        name = class_names[target] if target < len(class_names) else str(target)
        groups.append(DreamClass(name, tuple(data_uri(image) for image in pixels)))
    return DreamGrid(tuple(groups), pixelated=max(dreams.images.shape[2:]) <= THUMBNAIL)


def data_uri(pixels: Tensor) -> str:
    """A picture as a data URI of a PNG file, its longer side at most `THUMBNAIL` pixels.

    Args:
        pixels: shape (channels, height, width), in [0, 1]; other than three channels are shown as their average.
    """
    if len(pixels) != 3:
        pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
    picture = Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
