"""Networks with whole channels gone: the dense architecture, cut to a plan.

Needs nothing but torch, so that a structurally pruned model loads wherever Resprout runs: its architecture is built
by name, cut here, and given its weights.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from resprout.batchnorm import BatchNorm
from resprout.errors import ArtifactError
from resprout.types import ChannelPlan, PruningMask

TOLERANCE = 1e-3
"""How far two networks that compute the same may be apart, relative to the values' size: float32 sums in another
order, over some hundred layers."""


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each channel is convolved alone, so that what is taken and what is given are the same channels."""
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels == layer.out_channels


def is_cuttable(layer: nn.Module) -> bool:
    """Whether `shrink` can take channels of this layer away; other grouped convolutions stay whole."""
    if isinstance(layer, _ConvNd):
        return not isinstance(layer, _ConvTransposeNd) and (layer.groups == 1 or is_depthwise(layer))
    return isinstance(layer, nn.Linear | BatchNorm)


def num_channels(layer: Any, axis: int) -> int:
    """How many channels a layer gives (axis 0) or takes (axis 1)."""
    return int(layer.num_features if isinstance(layer, BatchNorm) else layer.weight.shape[axis])


def whole_mask(network: nn.Module) -> PruningMask:
    """A mask that removes nothing: every weight of every convolution and linear layer stays."""
    layers = {id(module.weight) for module in network.modules() if isinstance(module, _ConvNd | nn.Linear)}
    named = ((name, weight) for name, weight in network.named_parameters() if id(weight) in layers)
    return PruningMask({name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in named})


def shrink(network: nn.Module, plan: ChannelPlan) -> nn.Module:
    """A copy of a dense network that has the planned channels alone, with the weights that they had.

    Args:
        network: of the architecture that the plan was made for; is not changed.

    Raises:
        ArtifactError: the plan names a layer that is not there or cannot be cut, or counts its channels otherwise.
    """
    small = copy.deepcopy(network)
    for name, kept in plan.outputs.items():
        layer = _layer(small, name, kept, 0)
        _cut(layer, 0, kept)
        if isinstance(layer, BatchNorm):
            layer.num_features = int(kept.sum())
        elif isinstance(layer, _ConvNd):
            if is_depthwise(layer):
                layer.in_channels = layer.groups = int(kept.sum())
            layer.out_channels = int(kept.sum())
        else:
            layer.out_features = int(kept.sum())
    for name, kept in plan.inputs.items():
        layer = _layer(small, name, kept, 1)
        _cut(layer, 1, kept)
        setattr(layer, "in_channels" if isinstance(layer, _ConvNd) else "in_features", int(kept.sum()))
    return small


@torch.no_grad()
def zeroed(network: nn.Module, plan: ChannelPlan) -> nn.Module:
    """A copy of a dense network in its full shape, in which the channels that a plan removes carry nothing.

    It computes what the shrunk network computes, by another way.

    Raises:
        ArtifactError: as `shrink`.
    """
    same = copy.deepcopy(network)
    for axis, named in ((0, plan.outputs), (1, plan.inputs)):
        for name, kept in named.items():
            layer = _layer(same, name, kept, axis)
            for tensor in (layer.weight, layer.bias if axis == 0 else None):
                if tensor is not None:
                    tensor.index_fill_(axis, (~kept).nonzero().flatten().to(tensor.device), 0.0)
    return same


def alike(found: Any, expected: Tensor) -> bool:
    """Whether what one network gives is what the other gives, but for rounding."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _layer(network: nn.Module, name: str, kept: Tensor, axis: int) -> Any:
    """The layer called `name`, which has as many channels on this side as the plan says."""
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        raise _misfit(f"names {name}, which the network lacks") from None
    if not is_cuttable(layer) or (axis == 1 and (isinstance(layer, BatchNorm) or is_depthwise(layer))):
        raise _misfit(f"cuts the {('outputs', 'inputs')[axis]} of {name}, a {type(layer).__name__}")
    found = num_channels(layer, axis)
    if found != kept.numel():
        raise _misfit(f"speaks of {kept.numel()} {('outputs', 'inputs')[axis]} of {name}, which has {found}")
    return layer


def _misfit(what: str) -> ArtifactError:
    return ArtifactError(
        f"the channel plan {what}",
        why="it was made for another network, or put together by hand",
        now="make the model again, or fetch it again",
    )


def _cut(layer: Any, axis: int, kept: Tensor) -> None:
    chosen = kept.nonzero().flatten()
    tensors = ("weight",) if axis else ("weight", "bias", "running_mean", "running_var")
    for name in tensors:
        tensor = getattr(layer, name, None)
        if tensor is not None:
            cut = tensor.detach().index_select(axis, chosen.to(tensor.device))
            parameter = isinstance(tensor, nn.Parameter)
            setattr(layer, name, nn.Parameter(cut, tensor.requires_grad) if parameter else cut)
