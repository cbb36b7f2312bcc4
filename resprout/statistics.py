"""What a trained network remembers of its data: the running statistics of its BatchNorm layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from resprout.batchnorm import BatchNorm, batch_norm_layers
from resprout.errors import UnsupportedModelError
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
    with capture_spatial_sizes(teacher.network) as sizes, torch.no_grad():
        teacher.network(image)
    if not sizes:
        raise UnsupportedModelError(
            f"{teacher.info.architecture} passes its input through no BatchNorm layer with running statistics",
            why="dreams are synthesized from these statistics; there is nothing to match",
            now="use a network with BatchNorm, not a copy in which it was folded into the convolutions",
        )
    layers = batch_norm_layers(teacher.network)
    return BNStatistics(tuple(_read(name, layers[name], spatial) for name, spatial in sizes.items()))


@contextmanager
def capture_spatial_sizes(network: nn.Module) -> Iterator[dict[str, tuple[int, ...]]]:
    """Record the size of what enters each BatchNorm layer, in the order in which the layers run.

    Yields:
        Layer name -> (height, width), () for a vector, as of the layer's first use. The hooks are gone when the
        block ends, however it ends.
    """
    sizes: dict[str, tuple[int, ...]] = {}

    def record(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.setdefault(name, tuple(inputs[0].shape[2:]))

    handles: list[Any] = []
    try:
        for name, layer in batch_norm_layers(network).items():
            handles.append(layer.register_forward_pre_hook(partial(record, name)))
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def _read(name: str, layer: BatchNorm, spatial: tuple[int, ...]) -> LayerStatistics:
    mean, variance = cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var)  # batch_norm_layers saw to it
    return LayerStatistics(
        name=name,
        mean=mean.detach().to("cpu", torch.float32, copy=True),
        variance=variance.detach().to("cpu", torch.float32, copy=True),
        eps=float(layer.eps),
        spatial=spatial,
    )
