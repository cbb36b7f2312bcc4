"""What BatchNorm layers remember of the data that they were trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from resprout.errors import ArtifactError


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


@dataclass(frozen=True)
class AllChannels:
    """The running statistics of all layers in one piece, so that comparing with them takes few kernels.

    Args:
        mean, variance: float32, shape (channels of all layers,), in network order.
        spread: variance + the layer's eps, likewise.
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
        spread = torch.cat([layer.variance + layer.eps for layer in self.layers])
        sizes = torch.tensor([layer.channels for layer in self.layers], dtype=torch.float32)
        membership = torch.block_diag(*(torch.ones(layer.channels, 1) for layer in self.layers))
        return AllChannels(mean, variance, spread, sizes.to(mean.device), membership.to(mean.device))
