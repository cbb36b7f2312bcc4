"""Images as the teacher takes them, and what had to be done to them."""

from __future__ import annotations

import warnings
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

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "AVIF": (".avif",),
}
"""What images may be, by Pillow's names, and the suffixes that they have. Pillow knows more, among them PostScript,
which it hands to another program."""
MAX_PIXELS = 1 << 26
"""The most pixels of an image: a quarter of a GiB once decoded, which leaves room beside it in a stage of 4 GiB."""

_MODES = {1: "L", 3: "RGB"}
_GREY = ("1", "L", "LA", "La")


def read_image(path: Path) -> Image.Image:
    """An image file's pixels, of several frames the first one's; the orientation in its EXIF data is not followed.

    Raises:
        DatasetError: it cannot be read, is of none of `FORMATS`, too large, or has more than 8 bits a channel.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_readable()) as image:
                _check(image, path)  # before what may take much memory
                image.load()
    except DatasetError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own limit is a higher one
        raise _too_large(path) from None
    except Exception as error:  # a decoder answers to a damaged file in its own way
        raise DatasetError(
            f"image {path} cannot be read: {error or type(error).__name__}",
            why=f"it is damaged, or none of {', '.join(FORMATS)}",
            now="restore it, or remove it from the test set",
        ) from None
    return image


def _readable() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check(image: Image.Image, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path)
    if image.mode.startswith(("I", "F")):
        raise DatasetError(
            f"image {path} has more than 8 bits a channel (mode {image.mode})",
            why="cutting it down to 8 would need a scale that only you know",
            now="save it with 8 bits a channel, scaled as in training",
        )


def _too_large(path: Path) -> DatasetError:
    return DatasetError(
        f"image {path} has more than {MAX_PIXELS:,} pixels",
        why="decoded, they would take the memory of a stage, however small the file is",
        now="save it smaller: it is scaled to the teacher's input anyway",
    )


def fit(image: Image.Image, spec: InputSpec, source: str, changes: Counter[Change]) -> Tensor:
    """An image's pixels in the teacher's input shape, uint8.

    Args:
        image: with 8 bits a channel.
        spec: the teacher's.
        source: what a refusal calls the image.
        changes: what is done to it is counted here.

    Raises:
        DatasetError: the teacher takes neither 1 nor 3 channels, or the image's colours cannot be made those.
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
    try:
        image = image.convert(_MODES[channels])
    except ValueError as error:  # such as Lab
        raise DatasetError(f"{source} cannot be read as {_MODES[channels]}: {error}", now="save it in RGB") from None
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
