"""Views of dreams: what may become of an image, and which classes it shows then."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from resprout.recovery.augmentation import augment


def test_augmentation_shifts_and_mirrors_each_image_on_its_own() -> None:
    images = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).view(2, 3, 5, 5) + 1
    shown = torch.eye(2).repeat(20, 1)
    views, targets = augment(
        images.repeat(20, 1, 1, 1), shown, jitter=1, flip=True, mixup=0.0, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(targets, shown)
    padded = functional.pad(images, (1, 1, 1, 1))
    for view, source in zip(views, list(padded) * 20, strict=True):
        crops = [source[:, y : y + 5, x : x + 5] for y in range(3) for x in range(3)]
        assert any(torch.equal(view, crop) or torch.equal(view, crop.flip(2)) for crop in crops)
    assert len({view.numpy().tobytes() for view in views}) > 10


def test_mixup_keeps_every_pixel_between_its_sources() -> None:
    images = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    mixed, _ = augment(images, torch.ones(16, 1), jitter=0, flip=False, mixup=1.0, generator=generator)
    assert (mixed <= images.amax(0) + 1e-6).all()
    assert (mixed >= images.amin(0) - 1e-6).all()
    assert not torch.equal(mixed, images)


def test_a_blend_shows_both_classes_by_the_share_of_each_image() -> None:
    labels = torch.tensor([0, 1, 2, 2, 4, 3, 0, 1])
    one_hot = torch.eye(5)[labels]
    painted = one_hot[:, :, None, None].expand(-1, -1, 4, 4)  # channel c is lit where the class is c
    generator = torch.Generator().manual_seed(1)
    mixed, targets = augment(painted, one_hot, jitter=0, flip=False, mixup=1.0, generator=generator)
    assert torch.equal(targets, mixed[:, :, 2, 2])

    again = torch.Generator().manual_seed(1)
    gammas = torch._standard_gamma(torch.full((2, 8), 1.0), generator=again)
    share, partner = gammas[0] / gammas.sum(0), torch.randperm(8, generator=again)
    assert (labels[partner] != labels).any(), "the test needs blends of two classes"
    logits = torch.randn(8, 5, generator=again)
    own, other = (functional.cross_entropy(logits, of, reduction="none") for of in (labels, labels[partner]))
    explicit = (share * own + (1 - share) * other).mean()
    torch.testing.assert_close(functional.cross_entropy(logits, targets), explicit)


def coordinates(batch: int, height: int, width: int) -> Tensor:
    """Images whose first channel says how far right a pixel is, whose second how far down, from the middle."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([columns - (width - 1) / 2, rows - (height - 1) / 2]).float()
    return image.expand(batch, -1, -1, -1)


def jacobians(views: Tensor) -> Tensor:
    """What a step right and a step down, in the middle of each view, are in its source: shape (batch, 2, 2)."""
    y, x = views.shape[2] // 2, views.shape[3] // 2
    right = views[:, :, y, x + 1] - views[:, :, y, x]
    down = views[:, :, y + 1, x] - views[:, :, y, x]
    return torch.stack([right, down], dim=2)


def unmixed(images: Tensor, **options: float) -> Tensor:
    seen = torch.zeros(len(images), 1)
    draws = torch.Generator().manual_seed(0)
    return augment(images, seen, jitter=0, flip=False, mixup=0.0, generator=draws, **options)[0]


def test_zoom_stretches_each_side_by_a_factor_of_its_own() -> None:
    found = jacobians(unmixed(coordinates(64, 16, 12), zoom=1.5))
    across, down = found[:, 0, 0], found[:, 1, 1]
    torch.testing.assert_close(found, torch.diag_embed(torch.stack([across, down], dim=1)), atol=1e-4, rtol=0)
    for factors in (across, down):
        assert 1 / 1.5 - 1e-3 < factors.min() < 0.75
        assert 1.35 < factors.max() < 1.5 + 1e-3
    assert not torch.allclose(across, down, atol=0.1)


def test_rotation_turns_without_shearing_whatever_the_shape() -> None:
    found = jacobians(unmixed(coordinates(64, 16, 12), rotation=20.0))
    torch.testing.assert_close(found @ found.mT, torch.eye(2).expand(64, 2, 2), atol=1e-3, rtol=0)
    angles = torch.rad2deg(torch.atan2(found[:, 1, 0], found[:, 0, 0]))
    assert -20.01 < angles.min() < -15
    assert 15 < angles.max() < 20.01


def test_what_comes_in_from_outside_mirrors_what_is_inside() -> None:
    images = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    views = unmixed(images, zoom=2.0, rotation=45.0)
    assert (views >= 1 - 1e-5).all(), "no pixel is empty"


@pytest.mark.parametrize("shape", [(12, 12), (8, 16)])
def test_cutmix_pastes_a_box_and_shows_both_classes_by_their_areas(shape: tuple[int, int]) -> None:
    one_hot = torch.eye(40)
    painted = one_hot[:, :, None, None].expand(-1, -1, *shape)  # channel c is lit where the class is c
    draws = torch.Generator().manual_seed(1)
    mixed, targets = augment(painted, one_hot, jitter=0, flip=False, mixup=1.0, cutmix=1.0, generator=draws)
    assert set(mixed.unique().tolist()) == {0.0, 1.0}, "nothing is blended"
    torch.testing.assert_close(targets, mixed.mean((2, 3)))
    shares = []
    for label, image in enumerate(mixed):
        box = image[label] == 0
        rows, columns = box.any(1), box.any(0)
        assert torch.equal(box, rows[:, None] & columns[None, :])
        shares.append(float(box.float().mean()))
    assert min(shares) < 0.1
    assert max(shares) > 0.5
    assert math.isclose(sum(shares) / 40, 0.4, abs_tol=0.15), "boxes at the edges are cut off"


def test_cutmix_takes_the_place_of_a_blend_in_the_share_of_batches_that_is_asked_for() -> None:
    images, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
    draws = torch.Generator().manual_seed(2)
    pasted = 0
    for _ in range(200):
        mixed, _ = augment(images, targets, jitter=0, flip=False, mixup=1.0, cutmix=0.25, generator=draws)
        pasted += bool((mixed[:, None] == images[None]).flatten(2).any(1).all())
    assert 30 < pasted < 70
