"""Holding a network to its pruning mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from resprout.types import PruningMask


def apply_mask(network: nn.Module, mask: PruningMask) -> None:
    """Set every pruned weight to exactly +0.0, in place.

    Raises:
        ValueError: the mask names a parameter that the network lacks, or has another shape.
    """
    holder(network, mask)()


def holder(network: nn.Module, mask: PruningMask) -> Callable[[], None]:
    """What does as `apply_mask` as often as it is called, as a training loop does: the mask moves to the device once.

    Raises:
        ValueError: as `apply_mask`.
    """
    parameters = dict(network.named_parameters())
    for name, kept in mask.keep.items():
        if name not in parameters or parameters[name].shape != kept.shape:
            raise ValueError(f"the mask's {name} {list(kept.shape)} does not fit the network")
    covered: list[Tensor] = [parameters[name] for name in mask.keep]
    # laid out as the weights are, since a GPU then takes all of them at once
    factors: list[Tensor] = [
        torch.empty_like(p).copy_(kept) for p, kept in zip(covered, mask.keep.values(), strict=True)
    ]

    @torch.no_grad()
    def hold() -> None:
        torch._foreach_mul_(covered, factors)
        torch._foreach_add_(covered, 0.0)  # a negative weight times 0 is -0.0

    return hold


def whole_layers(tensors: Mapping[str, Tensor], mask: PruningMask) -> list[str]:
    """The names of the weights that a mask might cover and does not, since they were excluded, fit no group, or
    no image reaches them.

    Args:
        tensors: a network's parameters and buffers by name.
    """
    return [
        name
        for name, tensor in tensors.items()
        if name.endswith("weight") and tensor.ndim > 1 and name not in mask.keep
    ]
