from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from torchmetrics.functional.image import total_variation as torchmetrics_total_variation

from resprout.batchnorm import Moments, channel_moments
from resprout.synthesis import losses
from resprout.types import BNStatistics, LayerStatistics


def _statistics(*channels: int, seed: int = 0) -> BNStatistics:
    generator = torch.Generator().manual_seed(seed)
    return BNStatistics(
        tuple(
            LayerStatistics(
                f"bn{i}", torch.randn(n, generator=generator), torch.rand(n, generator=generator) + 0.1, 1e-5
            )
            for i, n in enumerate(channels)
        )
    )


def _moments(*channels: int, seed: int = 1) -> list[Moments]:
    return [Moments(layer.mean, layer.variance) for layer in _statistics(*channels, seed=seed).layers]


def test_batch_norm_distance_of_a_hand_worked_case() -> None:
    target = BNStatistics((LayerStatistics("bn", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]), 0.0),))
    batch = [Moments(torch.tensor([4.0, 6.0]), torch.tensor([1.0, 16.0]))]
    assert losses.batch_norm_distance(batch, target).item() == pytest.approx(5 + 12)
    # in units of the teacher's deviation: means off by (3, 2), variances by (0, 3)
    expected = math.sqrt((9 + 4) / 2) + math.sqrt(9 / 2)
    assert losses.normalised_batch_norm_distance(batch, target).item() == pytest.approx(expected)


def test_batch_norm_distance_matches_float64_numpy() -> None:
    target, batch = _statistics(3, 8, 5), _moments(3, 8, 5)
    expected = sum(
        np.linalg.norm((found.mean - layer.mean).double().numpy())
        + np.linalg.norm((found.variance - layer.variance).double().numpy())
        for found, layer in zip(batch, target.layers, strict=True)
    )
    assert losses.batch_norm_distance(batch, target).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("distance", [losses.batch_norm_distance, losses.normalised_batch_norm_distance])
def test_a_batch_with_the_teachers_statistics_is_at_distance_zero(distance) -> None:
    target = _statistics(4, 6)
    exact = [
        Moments(layer.mean.clone().requires_grad_(), layer.variance.clone().requires_grad_()) for layer in target.layers
    ]
    value = distance(exact, target)
    value.backward()
    assert value.item() == 0
    assert all(torch.isfinite(m.mean.grad).all() and torch.isfinite(m.variance.grad).all() for m in exact)


def test_the_normalised_distance_does_not_see_the_scale_of_a_layer() -> None:
    target, batch = _statistics(4, 6), _moments(4, 6)
    scaled_target = BNStatistics(
        tuple(LayerStatistics(la.name, la.mean * 7, la.variance * 49, la.eps * 49) for la in target.layers)
    )
    scaled_batch = [Moments(m.mean * 7, m.variance * 49) for m in batch]
    torch.testing.assert_close(
        losses.normalised_batch_norm_distance(batch, target),
        losses.normalised_batch_norm_distance(scaled_batch, scaled_target),
    )


def _constant(target: BNStatistics, layer: int, share: float, variance: float) -> BNStatistics:
    """The statistics, with a share of a layer's channels that hardly varied."""
    layers = list(target.layers)
    varied = layers[layer].variance.clone()
    varied[: math.ceil(share * len(varied))] = variance
    layers[layer] = replace(layers[layer], variance=varied)
    return BNStatistics(tuple(layers))


@pytest.mark.parametrize(
    ("share", "variance"), [(0.01, 0.0), (0.01, 1e-38), (0.01, 1e-5), (0.6, 0.0), (0.6, 1e-5), (0.8, 1e-9), (1.0, 0.0)]
)
def test_channels_that_hardly_varied_in_training_do_not_outweigh_the_others(share: float, variance: float) -> None:
    target, batch = _statistics(40, 40, 40), _moments(40, 40, 40)
    without = losses.normalised_batch_norm_distance(batch, target)
    found = losses.normalised_batch_norm_distance(batch, _constant(target, 1, share, variance))
    assert 0.5 * without < found < 2 * without


def test_statistics_without_any_channel_that_varied_are_counted_in_units_of_1() -> None:
    target = BNStatistics((LayerStatistics("bn", torch.zeros(2), torch.zeros(2), 0.0),))
    batch = [Moments(torch.tensor([3.0, 3.0]), torch.tensor([2.0, 2.0]))]
    assert losses.normalised_batch_norm_distance(batch, target).item() == pytest.approx(3 + 2)


def test_channels_that_vary_less_than_others_are_counted_in_their_own_units() -> None:
    layer = LayerStatistics("bn", torch.zeros(40), torch.logspace(-2, 1, 40), 1e-5)
    assert torch.equal(BNStatistics((layer,)).all_channels.spread, layer.variance + 1e-5)


@pytest.mark.parametrize("distance", [losses.batch_norm_distance, losses.normalised_batch_norm_distance])
def test_gradients_are_finite_where_neither_the_batch_nor_the_training_data_varied(distance) -> None:
    inputs = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    inputs[:, 0] = 7.0
    inputs.requires_grad_()
    target = BNStatistics((LayerStatistics("bn", torch.tensor([7.0, 0.0, 7.0]), torch.tensor([0.0, 1.0, 0.0]), 1e-5),))
    distance([channel_moments(inputs)], target).backward()
    assert inputs.grad is not None
    assert torch.isfinite(inputs.grad).all()
    assert inputs.grad[:, 1:].abs().sum() > 0


def test_moments_of_other_layers_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="bn1 has 6 channels, the batch 5"):
        losses.batch_norm_distance(_moments(4, 5), _statistics(4, 6))
    with pytest.raises(ValueError, match="1 BatchNorm layers"):
        losses.batch_norm_distance(_moments(4), _statistics(4, 6))


def test_total_variation_matches_torchmetrics() -> None:
    images = torch.randn(3, 3, 9, 7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(losses.total_variation(images), torchmetrics_total_variation(images, reduction="none"))


def test_entropy_matches_scipy() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(4)) * 3
    expected = scipy_entropy(logits.double().softmax(1).numpy(), axis=1).mean()
    assert losses.entropy(logits).item() == pytest.approx(expected, rel=1e-5)
