"""Images as the teacher takes them, and what had to be done to them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from resprout.errors import DatasetError
from resprout.types import InputSpec

Change = Literal["coloured", "greyed", "resized"]
"""What was done to an image."""

_MODES = {1: "L", 3: "RGB"}
_GREY = ("1", "L", "LA", "La")


def read_image(path: Path) -> Image.Image:
    """An image file's pixels, of several frames the first one's; the orientation in its EXIF data is not followed.

    Raises:
        DatasetError: it cannot be read, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"image {path} cannot be read: {error}", now="restore it, or remove it from the test set"
        ) from None
    if image.mode.startswith(("I", "F")):
        raise DatasetError(
            f"image {path} has more than 8 bits a channel (mode {image.mode})",
            why="cutting it down to 8 would need a scale that only you know",
            now="save it with 8 bits a channel, scaled as in training",
        )
    return image


def fit(image: Image.Image, spec: InputSpec, source: str, changes: Counter[Change]) -> Tensor:
    """An image's pixels in the teacher's input shape, uint8.

    Args:
        image: with 8 bits a channel.
        spec: the teacher's.
        source: what a refusal calls the image.
        changes: what is done to it is counted here.

    Raises:
        DatasetError: the teacher takes neither 1 nor 3 channels.
    """
    channels, height, width = spec.shape
    if channels not in _MODES:
        raise DatasetError(
            f"{source} holds images of 1 or 3 channels, the teacher takes {channels}",
            now="pack the test set as .safetensors in the teacher's input shape",
        )
    if (image.mode in _GREY) != (channels == 1):
        changes["greyed" if channels == 1 else "coloured"] += 1
    # palettes and bit maps have no colours to interpolate between: convert first
    image = image.convert(_MODES[channels])
    if image.size != (width, height):
        changes["resized"] += 1
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.view(height, width, channels).permute(2, 0, 1)


def as_picture(image: Tensor, source: str) -> Image.Image:
    """Pixels of 1 or 3 channels, uint8, shape (channels, height, width), as an image.

    Raises:
        DatasetError: there are other channels.
    """
    mode = _MODES.get(image.shape[0])
    if mode is None:
        raise DatasetError(f"{source} holds images of {image.shape[0]} channels that do not fit the teacher's input")
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels)


def told(changes: Counter[Change], num_images: int, spec: InputSpec) -> tuple[str, ...]:
    """What was done to how many of the images, for people."""
    _, height, width = spec.shape
    said: dict[Change, str] = {
        "coloured": "are grey: each channel of the teacher's gets the same",
        "greyed": "are in colour: the teacher gets them in grey",
        "resized": f"are not {width} pixels wide and {height} high: scaled until they cover that, then centre-cropped",
    }
    return tuple(f"{changes[kind]:,} of {num_images:,} images {said[kind]}" for kind in said if changes[kind])
