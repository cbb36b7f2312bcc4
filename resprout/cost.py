"""What a network costs: parameters and multiply-accumulates (MACs)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from resprout.types import ModelCost


def model_cost(
    network: nn.Module, input_shape: tuple[int, int, int], maskable: Iterable[str], *, of_weights: int | None = None
) -> ModelCost:
    """Count a network's parameters, and its MACs for one image.

    Args:
        network: in evaluation mode; its weights are counted as they are, whatever mask they should obey.
        input_shape: (channels, height, width).
        maskable: names of the parameters that sparsity is counted over; none gives a sparsity of 0.
        of_weights: how many weights its teacher has under these names, more than the network where channels are gone;
            None: as many as the network.

    Returns:
        MACs count the weights of convolutions and linear layers; not biases, normalisation, pooling, or products
        of two activations. Effective MACs leave out weights that are exactly zero.
    """
    parameters = dict(network.named_parameters())
    covered = [parameters[name] for name in maskable]
    total = of_weights or sum(weight.numel() for weight in covered)
    first = next(iter(parameters.values()))
    image = torch.zeros(1, *input_shape, dtype=first.dtype, device=first.device)
    with count_weight_uses(network) as uses, torch.no_grad():
        network(image)
    return ModelCost(
        parameters=sum(parameter.numel() for parameter in parameters.values()),
        nonzero_parameters=sum(_nonzero(parameter) for parameter in parameters.values()),
        dense_macs=sum(count * layer.weight.numel() for layer, count in uses.items()),
        effective_macs=sum(count * _nonzero(layer.weight) for layer, count in uses.items()),
        sparsity=1 - sum(map(_nonzero, covered)) / total if covered else 0.0,
    )


@contextmanager
def count_weight_uses(network: nn.Module) -> Iterator[dict[Any, int]]:
    """Count how often each weight of each convolution and linear layer is multiplied in what runs in the block.

    Within one layer it is the same for every weight: a convolution's is used once per output position, a
    transposed one's once per input position, a linear layer's once per vector. So MACs = uses x weights, and a
    weight that is zero saves exactly `uses` of them. (At zero-padded borders the products with padding count.)

    Yields:
        Layer -> uses, summed over its calls; the hooks are gone when the block ends, however it ends.
    """
    uses: dict[Any, int] = {}

    def count(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            positions = output.numel() // layer.out_features
        elif isinstance(layer, _ConvTransposeNd):
            positions = inputs[0].numel() // layer.in_channels
        else:
            positions = output.numel() // layer.out_channels
        uses[layer] = uses.get(layer, 0) + positions

    handles: list[Any] = []
    try:
        for module in network.modules():
            if isinstance(module, _ConvNd | nn.Linear):
                handles.append(module.register_forward_hook(count))
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def _nonzero(tensor: Tensor) -> int:
    return int(torch.count_nonzero(tensor.detach()))
