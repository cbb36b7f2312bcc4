from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resprout.batchnorm import batch_norm_layers, capture_moments, channel_moments
from resprout.types import Teacher


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(2, 9),
    channels=st.integers(1, 17),
    size=st.integers(1, 7),
    channels_last=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_moments_match_float64_numpy_on_random_shapes(
    batch: int, channels: int, size: int, channels_last: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(batch, channels, size, size, generator=generator) * 3 + 2
    if channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    moments = channel_moments(inputs)
    exact = inputs.numpy().astype(np.float64)
    np.testing.assert_allclose(moments.mean.numpy(), exact.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(moments.variance.numpy(), exact.var((0, 2, 3)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5, 5)])
def test_moments_gradient_is_that_of_float64_autograd(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(shape, generator=generator) * 2 + 1
    weights = torch.randn(2, shape[1], generator=generator)
    fast = inputs.clone().requires_grad_()
    moments = channel_moments(fast)
    (weights[0] * moments.mean + weights[1] * moments.variance).sum().backward()
    exact = inputs.double().requires_grad_()
    reduced = tuple(axis for axis in range(len(shape)) if axis != 1)
    variance, mean = torch.var_mean(exact, dim=reduced, unbiased=False)
    (weights[0].double() * mean + weights[1].double() * variance).sum().backward()
    torch.testing.assert_close(fast.grad, exact.grad.float(), atol=1e-5, rtol=1e-4)


def test_moments_of_bfloat16_inputs_are_accumulated_in_float32() -> None:
    inputs = (torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(1)) + 8).bfloat16()
    moments = channel_moments(inputs)
    assert moments.mean.dtype == moments.variance.dtype == torch.float32
    exact_variance, exact_mean = torch.var_mean(inputs.double(), dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(moments.mean.double(), exact_mean, atol=0, rtol=1e-5)
    torch.testing.assert_close(moments.variance.double(), exact_variance, atol=0, rtol=1e-4)


def test_every_layer_is_captured_and_capturing_changes_no_logit(tiny_teacher: Teacher) -> None:
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    plain = tiny_teacher.network(images)
    with capture_moments(tiny_teacher.network) as moments:
        captured = tiny_teacher.network(images)
    assert torch.equal(plain, captured)
    assert set(moments) == set(batch_norm_layers(tiny_teacher.network))


def test_layers_without_running_statistics_do_not_count() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3))
    assert list(batch_norm_layers(network)) == ["1"]
