"""What a trained network remembers of its data: the running statistics of its BatchNorm layers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from resprout.batchnorm import BatchNorm, batch_norm_layers
from resprout.errors import UnsupportedModelError
from resprout.hooks import each_use
from resprout.types import BNStatistics, LayerStatistics, Teacher


def extract(teacher: Teacher) -> BNStatistics:
    """Every BatchNorm layer's running mean and variance, in the order in which an image passes the layers.

    One image of zeros goes through the network to find that order and each layer's spatial size. A layer that
    it does not pass (an auxiliary head, say) is left out: a dream cannot be matched to it either.

    Args:
        teacher: is not changed.

    Returns:
        Float32 copies on the CPU.

    Raises:
        UnsupportedModelError: no BatchNorm layer with running statistics is passed.
    """
    first = next(teacher.network.parameters())
    image = torch.zeros(1, *teacher.info.input.shape, dtype=first.dtype, device=first.device)
    layers = batch_norm_layers(teacher.network)
    with each_use(teacher.network, layers, _spatial_size, before=True) as sizes, torch.no_grad():
        teacher.network(image)
    if not sizes:
        raise UnsupportedModelError(
            f"{teacher.info.architecture} passes its input through no BatchNorm layer with running statistics",
            why="dreams are synthesized from these statistics; there is nothing to match",
            now="use a network with BatchNorm, not a copy in which it was folded into the convolutions",
        )
    return BNStatistics(tuple(_read(name, layers[name], spatial) for name, (spatial, *_) in sizes.items()))


def _spatial_size(inputs: tuple[Tensor, ...]) -> tuple[int, ...]:
    return tuple(inputs[0].shape[2:])


def _read(name: str, layer: BatchNorm, spatial: tuple[int, ...]) -> LayerStatistics:
    mean, variance = cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var)  # batch_norm_layers saw to it
    return LayerStatistics(
        name=name,
        mean=mean.detach().to("cpu", torch.float32, copy=True),
        variance=variance.detach().to("cpu", torch.float32, copy=True),
        eps=float(layer.eps),
        spatial=spatial,
    )
