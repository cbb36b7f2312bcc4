"""What BatchNorm layers remember of the data that they were trained on."""

from __future__ import annotations

from dataclasses import dataclass

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
