from __future__ import annotations

import pytest
import torch
from batches import PADDING, choose, crop_and_flip, prepare, resize
from cifar10 import INPUT
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference


def test_prepare_normalises_and_pads_as_torchvision_does() -> None:
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    expected = reference.pad(v2.Normalize(INPUT.mean, INPUT.std)(images / 255), [PADDING] * 4)

    torch.testing.assert_close(prepare(images, INPUT), expected.to(torch.bfloat16))


def test_every_image_of_a_batch_is_a_crop_of_its_own_mirrored_or_not() -> None:
    generator = torch.Generator().manual_seed(2)
    padded = torch.randn(5, 3, 16, 16, generator=generator)
    indices = torch.tensor([3, 0, 4, 3, 1, 2] * 8)

    seen = set()
    for index, crop in zip(indices.tolist(), crop_and_flip(padded, indices, generator), strict=True):
        places = {
            (top, left, mirrored)
            for top in range(2 * PADDING + 1)
            for left in range(2 * PADDING + 1)
            for mirrored in (False, True)
            if torch.equal(crop, flip_if(mirrored, reference.crop(padded[index], top, left, 8, 8)))
        }
        assert len(places) == 1
        seen |= places

    assert {mirrored for _, _, mirrored in seen} == {False, True}
    assert {top for top, _, _ in seen} == set(range(9))
    assert {left for _, left, _ in seen} == set(range(9))


def flip_if(mirrored: bool, image: torch.Tensor) -> torch.Tensor:
    return reference.horizontal_flip(image) if mirrored else image


def test_resize_leaves_the_right_size_alone() -> None:
    images = torch.randn(2, 3, 8, 8)

    assert resize(images, 8) is images
    torch.testing.assert_close(resize(images, 6), reference.resize(images, [6, 6], antialias=True))


def test_samples_that_are_not_easy_are_always_visited_at_full_weight() -> None:
    losses = torch.tensor([0.1, 0.2, 5.0, 0.3, 4.0])

    for seed in range(20):
        order, weights = choose(losses, 0.5, torch.Generator().manual_seed(seed))
        assert {2, 4} <= set(order.tolist())
        assert weights.tolist() == [2, 2, 1, 2, 1]
        assert len(set(order.tolist())) == len(order)


@pytest.mark.parametrize("probability", [0.25, 0.5, 0.8])
def test_skipping_keeps_the_expected_gradient(probability: float) -> None:
    losses = torch.rand(4000, generator=torch.Generator().manual_seed(5)) ** 2
    gradients = torch.randn(4000, generator=torch.Generator().manual_seed(6)) + 1

    generator, totals = torch.Generator().manual_seed(7), []
    for _ in range(100):
        order, weights = choose(losses, probability, generator)
        totals.append((weights * gradients)[order].sum())

    assert torch.stack(totals).mean() == pytest.approx(float(gradients.sum()), rel=0.02)


def test_without_skipping_every_sample_is_visited_once() -> None:
    order, weights = choose(torch.rand(50), 0.0, torch.Generator().manual_seed(8))

    assert sorted(order.tolist()) == list(range(50))
    assert bool((weights == 1).all())
