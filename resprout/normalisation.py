"""Whether an input's shape and normalisation can be what was meant, from a recipe and from a hub alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

LEAST_STD = 1e-3
"""A quarter of a step of 8-bit pixels; a std that was divided by 255 twice is below it."""


MAX_NUMBERS = 1 << 24
"""Of an image: 3 channels of 2,364 pixels a side. What layers make of larger ones fits no stage's memory."""


class Problem(NamedTuple):
    """What is wrong with an input, why that matters, and what to do: an error's three lines."""

    what: str
    why: str
    now: str


def problem_of(shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> Problem | None:
    """The first thing that is wrong with an input; None where it can be worked with.

    Args:
        shape: (channels, height, width).
        mean, std: per channel, in [0, 1] pixel space. A network that takes 0..255 has mean 0 and std 1/255.
    """
    return _of_shape(shape, mean) or _of_counts(shape, mean, std) or _of_units(mean, std)


def _of_shape(shape: Sequence[int], mean: Sequence[float]) -> Problem | None:
    if len(shape) != 3 or min(shape) < 1:
        return Problem(
            f"shape is {list(shape)}, not channels, height, width",
            "an image has three sizes, each at least 1",
            "for example shape: [3, 32, 32]",
        )
    if math.prod(shape) > MAX_NUMBERS:
        return Problem(
            f"shape is {list(shape)}, more than {MAX_NUMBERS:,} numbers an image",
            "what layers make of such an image fits no stage's memory",
            "give the size that the network was trained on, for example shape: [3, 224, 224]",
        )
    height, width, channels = shape
    if channels <= 4 < height and len(mean) != height:
        return Problem(
            f"shape is {list(shape)}, and that is height, width, channels",
            f"shape is channels, height, width: these would be images of {height} channels",
            f"shape: [{channels}, {height}, {width}]",
        )
    return None


def _of_counts(shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> Problem | None:
    if len(mean) == len(std) == shape[0]:
        return None
    return Problem(
        f"there are {len(mean)} means and {len(std)} standard deviations for {shape[0]} channels",
        "each channel is normalised by its own",
        f"give mean and std one value per channel, {shape[0]} each",
    )


def _of_units(mean: Sequence[float], std: Sequence[float]) -> Problem | None:
    stated = f"mean is {_listed(mean)} and std {_listed(std)}"
    if not all(map(math.isfinite, [*mean, *std])):
        return Problem(stated, "normalised = (pixel - mean) / std", "give numbers")
    if max(*mean, *std) > 1:
        return Problem(
            stated,
            "pixels are in [0, 1] here, and so are their mean and std; above 1 they are of pixels in 0..255",
            f"divide by 255: mean: {_listed([value / 255 for value in mean])}, "
            f"std: {_listed([value / 255 for value in std])}",
        )
    if min(mean) < 0:
        return Problem(
            stated,
            "normalised = (pixel - mean) / std, and no pixel is below 0",
            "state it so: 2 * pixel - 1 is mean 0.5, std 0.5",
        )
    if min(std) < LEAST_STD:
        return Problem(
            stated,
            "pixels in [0, 1] are divided by std" + (", which may have been divided by 255 twice" * (min(std) > 0)),
            "a network that takes pixels in 0..255 has std 0.00392, which is 1/255; one that takes 0..1 has std 1",
        )
    return None


def _listed(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.3g}' for value in values)}]"
