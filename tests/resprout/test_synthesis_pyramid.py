from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from resprout.synthesis import pyramid


def _levels(*shape: int, coarsest: int = 1, seed: int = 0) -> list[torch.Tensor]:
    channels, height, width = shape
    return pyramid.noise(5, (channels, height, width), coarsest, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "coarsest", "sizes"),
    [
        ((3, 32, 32), 4, [(32, 32), (16, 16), (8, 8), (4, 4)]),
        ((1, 28, 20), 4, [(28, 20), (14, 10), (7, 5), (4, 3)]),
        ((3, 4, 9), 4, [(4, 9)]),
        ((3, 8, 8), 1, [(8, 8), (4, 4), (2, 2), (1, 1)]),
        ((1, 3, 5), 1, [(3, 5), (2, 3), (1, 2)]),
    ],
)
def test_levels_halve_down_to_as_few_pixels_as_asked(
    shape: tuple[int, int, int], coarsest: int, sizes: list[tuple[int, int]]
) -> None:
    levels = _levels(*shape, coarsest=coarsest)
    assert [tuple(level.shape) for level in levels] == [(5, shape[0], *size) for size in sizes]


def test_a_pyramid_down_to_one_pixel_starts_from_images_that_differ_in_brightness() -> None:
    def spread(coarsest: int) -> float:
        return float(pyramid.compose(_levels(3, 32, 32, coarsest=coarsest)).mean((2, 3)).std(0).mean())

    assert spread(1) > 3 * spread(4)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 20), (2, 15, 33)])
def test_composition_matches_torchs_bilinear_enlargement(shape: tuple[int, int, int]) -> None:
    levels = _levels(*shape)
    expected = levels[-1].double()
    for finer in reversed(levels[:-1]):
        enlarged = functional.interpolate(expected, size=finer.shape[2:], mode="bilinear", align_corners=False)
        expected = finer.double() + enlarged
    torch.testing.assert_close(pyramid.compose(levels).double(), expected, atol=1e-5, rtol=1e-5)


def test_a_single_level_is_the_images_themselves() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert pyramid.compose([images]) is images


def test_projection_bounds_the_images_and_touches_only_what_was_outside() -> None:
    levels = _levels(3, 16, 16)
    before = pyramid.compose(levels)
    coarser = [level.clone() for level in levels[1:]]
    pyramid.project(levels, 0.5)
    torch.testing.assert_close(pyramid.compose(levels), before.clamp(-0.5, 0.5))
    assert all(torch.equal(now, then) for now, then in zip(levels[1:], coarser, strict=True))


def test_a_random_pyramid_has_more_low_than_high_frequencies_unlike_white_noise() -> None:
    def share_of_low_frequencies(images: torch.Tensor) -> float:
        power = torch.fft.fft2(images).abs().square()
        return float(power[..., :4, :4].sum() / power.sum())

    white = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    assert share_of_low_frequencies(pyramid.compose(_levels(3, 32, 32))) > 3 * share_of_low_frequencies(white)
