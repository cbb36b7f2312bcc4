"""What BatchNorm layers remember of the data that they were trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from resprout.errors import ArtifactError

HARDLY = 1e-3
"""A channel hardly varied if its variance is less than this share of its layer's usual one. In the published
EfficientNet-Lite0 and Lite1 all but one of those that are below it are below a millionth, most at 0."""


@dataclass(frozen=True)
class LayerStatistics:
    """One BatchNorm layer's running statistics.

    Args:
        name: its dotted module name.
        mean: float32, shape (channels,).
        variance: float32, shape (channels,), not negative.
        eps: the layer's own, as in (x - mean) / sqrt(variance + eps).
        spatial: (height, width) of its input for an image of the teacher's input shape; () for a 1-d layer.
    """

    name: str
    mean: Tensor
    variance: Tensor
    eps: float
    spatial: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        return int(self.mean.numel())

    @property
    def usual_variance(self) -> float:
        """What three of four channels do not exceed; 0 where even that is nothing beside eps."""
        usual = float(self.variance.quantile(0.75))
        return usual if usual > HARDLY * self.eps else 0.0


@dataclass(frozen=True)
class AllChannels:
    """The running statistics of all layers in one piece, so that comparing with them takes few kernels.

    Args:
        mean, variance: float32, shape (channels of all layers,), in network order.
        spread: the variance that a channel's errors are counted in, likewise: its own + the layer's eps, or the layer's
            usual one + eps where it hardly varied.
        sizes: float32, shape (layers,): channels of each.
        membership: float32, shape (channels of all layers, layers): 1 where a channel is one of a layer's.
    """

    mean: Tensor
    variance: Tensor
    spread: Tensor
    sizes: Tensor
    membership: Tensor


@dataclass(frozen=True)
class BNStatistics:
    """The running statistics of every BatchNorm layer, in network order."""

    layers: tuple[LayerStatistics, ...]

    def __post_init__(self) -> None:
        for layer in self.layers:
            if layer.mean.shape != layer.variance.shape or layer.mean.ndim != 1:
                raise ArtifactError(f"statistics of {layer.name}: mean and variance differ in shape or are not vectors")
            if not (torch.isfinite(layer.mean).all() and torch.isfinite(layer.variance).all()):
                raise ArtifactError(f"statistics of {layer.name} hold NaN or infinity")
            if (layer.variance < 0).any():
                raise ArtifactError(f"statistics of {layer.name} hold a negative variance")

    @property
    def num_channels(self) -> int:
        return sum(layer.channels for layer in self.layers)

    def to(self, device: torch.device) -> BNStatistics:
        """The same on another device."""
        layers = (replace(each, mean=each.mean.to(device), variance=each.variance.to(device)) for each in self.layers)
        return BNStatistics(tuple(layers))

    @cached_property
    def all_channels(self) -> AllChannels:
        """All layers' statistics in one piece, on their device."""
        mean = torch.cat([layer.mean for layer in self.layers])
        variance = torch.cat([layer.variance for layer in self.layers])
        spread = torch.cat([self._spread(layer) for layer in self.layers])
        sizes = torch.tensor([layer.channels for layer in self.layers], dtype=torch.float32)
        membership = torch.block_diag(*(torch.ones(layer.channels, 1) for layer in self.layers))
        return AllChannels(mean, variance, spread, sizes.to(mean.device), membership.to(mean.device))

    def _spread(self, layer: LayerStatistics) -> Tensor:
        # A channel that was constant in training, or nearly, says nothing of what it varies by: in units of its own,
        # the slightest error there would outweigh all other channels' together
        usual = layer.usual_variance or self._usual_variance
        return torch.where(layer.variance < HARDLY * usual, usual, layer.variance) + layer.eps

    @cached_property
    def _usual_variance(self) -> float:
        """The median over layers in which most channels vary; 1 where there is none."""
        known = sorted(filter(None, (layer.usual_variance for layer in self.layers)))
        return known[len(known) // 2] if known else 1.0
