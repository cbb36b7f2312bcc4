"""BatchNorm layers: finding them, and reading a batch's own statistics while it passes through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from resprout.hooks import each_use

BatchNorm = _BatchNorm


@dataclass(frozen=True)
class Moments:
    """A batch's statistics at one BatchNorm layer: mean and biased variance, float32, shape (channels,)."""

    mean: Tensor
    variance: Tensor


def batch_norm_layers(network: nn.Module) -> dict[str, BatchNorm]:
    """Every BatchNorm layer that tracks running statistics, by dotted name, in definition order."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@contextmanager
def capture_moments(network: nn.Module) -> Iterator[dict[str, list[Moments]]]:
    """Collect the moments of what enters each BatchNorm layer; gradients flow through them.

    Yields:
        Name -> one for each use of the layer; see `hooks.each_use`.
    """
    with each_use(network, batch_norm_layers(network), _of_inputs, before=True) as moments:
        yield moments


def _of_inputs(inputs: tuple[Tensor, ...]) -> Moments:
    return channel_moments(inputs[0])


def mean_moments(uses: Sequence[Moments]) -> Moments:
    """The moments that a layer's running statistics come near to: each use counts alike, as it does in training."""
    if len(uses) == 1:
        return uses[0]
    mean, variance = (torch.stack(parts).mean(0) for parts in zip(*((m.mean, m.variance) for m in uses), strict=True))
    return Moments(mean, variance)


def channel_moments(inputs: Tensor) -> Moments:
    """Mean and biased variance of each channel, in float32 whatever the input's type.

    Args:
        inputs: shape (batch, channels) or (batch, channels, height, width), float32, bfloat16 or float16.
    """
    return Moments(*_ChannelMoments.apply(inputs))


class _ChannelMoments(torch.autograd.Function):
    """Channel statistics in one pass each way.

    These statistics are most of DeepInversion's cost when they are written as x.float().mean() and .var():
    several passes over a float32 copy, forward and backward. BatchNorm's own kernels read bfloat16 and
    accumulate in float32, in one pass. The gradient of both moments is an affine map of x per channel,

        dL/dx = dL/dmean / n + dL/dvariance * 2 (x - mean) / n,

    which an evaluation-mode BatchNorm with made-up parameters computes in one pass too.
    """

    @staticmethod
    def forward(context: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
        channels = inputs.shape[1]
        zeros = torch.zeros(channels, dtype=torch.float32, device=inputs.device)
        mean, variance = torch.batch_norm_update_stats(inputs, zeros, torch.ones_like(zeros), 0.0)
        context.save_for_backward(inputs, mean)
        return mean, variance

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        inputs, mean = context.saved_tensors
        grad_mean, grad_variance = gradients
        count = inputs.numel() // inputs.shape[1]
        return functional.batch_norm(
            inputs,
            running_mean=mean,
            running_var=torch.ones_like(mean),
            weight=grad_variance * (2 / count),
            bias=grad_mean / count,
            training=False,
            eps=1e-30,  # as good as nothing beside 1, and torch 2.11 refuses nothing
        )
