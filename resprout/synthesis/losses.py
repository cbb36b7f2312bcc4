"""The terms of the synthesis objective: pure functions of images, logits and moments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from resprout.batchnorm import Moments, mean_moments
from resprout.types import BNStatistics


def matched(moments: Mapping[str, Sequence[Moments]], target: BNStatistics) -> tuple[list[Moments], BNStatistics]:
    """What a pass is compared with: the moments of the layers that it ran, over all uses of each, and their statistics.

    Args:
        moments: as `capture_moments` collects them.
        target: the running statistics of all layers. A layer that this pass did not run, contributes nothing.
    """
    ran = tuple(layer for layer in target.layers if layer.name in moments)
    found = [mean_moments(moments[layer.name]) for layer in ran]
    return found, target if len(ran) == len(target.layers) else BNStatistics(ran)


def batch_norm_distance(moments: Sequence[Moments], target: BNStatistics) -> Tensor:
    """How far a batch's channel statistics are from the teacher's running ones, in absolute terms.

    Eq. 4, arXiv 2511.20702: the sum over layers of |mean - running_mean|_2 + |variance - running_variance|_2.

    Args:
        moments: one per BatchNorm layer, in the order of `target`; float32, shape (channels,).
        target: the running statistics to match.

    Returns:
        A float32 scalar that gradients flow through.

    Raises:
        ValueError: the number of layers or of channels differs; the message names the first layer that does.
    """
    _check(moments, target)
    return _norms(*_errors(moments, target), target).sum()


def normalised_batch_norm_distance(
    moments: Sequence[Moments], target: BNStatistics, first_layer_multiplier: float = 1.0
) -> Tensor:
    """How far a batch's channel statistics are from the teacher's, in units of the teacher's standard deviation.

    For each layer the root mean square over its channels of (mean - m) / s, plus that of (variance - v) / s²,
    with s² = v + eps; then the mean over layers. Layers and channels count alike, whatever their scale and
    number, so that one weight fits every architecture. A channel that hardly varied in training has no scale of its
    own, and gets its layer's (`AllChannels.spread`).

    Args, returns and errors as `batch_norm_distance`; the first layer counts `first_layer_multiplier` times.
    """
    _check(moments, target)
    mean_error, variance_error = _errors(moments, target)
    teacher = target.all_channels
    norms = _norms(mean_error * teacher.spread.rsqrt(), variance_error / teacher.spread, target)
    distances = norms.sum(0) * teacher.sizes.rsqrt()
    total = distances.sum() + (first_layer_multiplier - 1) * distances[0]
    return total / (len(moments) - 1 + first_layer_multiplier)


def total_variation(images: Tensor) -> Tensor:
    """Anisotropic total variation of each image: the sum of |differences| between neighbouring pixels.

    Args:
        images: shape (batch, channels, height, width).

    Returns:
        Shape (batch,). The sum over the batch is the paper's L_TV.
    """
    down = (images[:, :, 1:, :] - images[:, :, :-1, :]).abs().flatten(1).sum(1)
    right = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().flatten(1).sum(1)
    return down + right


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the predicted class distributions, in nats; logits of shape (batch, classes)."""
    log_probabilities = functional.log_softmax(logits, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(1).mean()


def _errors(moments: Sequence[Moments], target: BNStatistics) -> tuple[Tensor, Tensor]:
    """By how much means and variances are off: float32, shapes (channels of all layers,)."""
    mean, variance = (torch.cat(parts) for parts in zip(*((m.mean, m.variance) for m in moments), strict=True))
    return mean - target.all_channels.mean, variance - target.all_channels.variance


def _norms(mean_error: Tensor, variance_error: Tensor, target: BNStatistics) -> Tensor:
    """Each layer's L2 norm of both, shape (2, layers); of all layers at once, which takes few kernels."""
    squares = torch.stack([mean_error, variance_error]).square() @ target.all_channels.membership
    # where nothing is off, the root would have a slope of infinity, and clamping gives 0
    return squares.clamp_min(_TINY).sqrt() - math.sqrt(_TINY)


_TINY = 1e-30


def _check(moments: Sequence[Moments], target: BNStatistics) -> None:
    if len(moments) != len(target.layers):
        raise ValueError(f"moments of {len(moments)} BatchNorm layers, statistics of {len(target.layers)}")
    for batch, layer in zip(moments, target.layers, strict=True):
        if batch.mean.shape != layer.mean.shape:
            raise ValueError(f"layer {layer.name} has {layer.channels} channels, the batch {batch.mean.numel()}")
