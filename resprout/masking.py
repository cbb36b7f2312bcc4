"""Holding a network to its pruning mask."""

from __future__ import annotations

import torch
from torch import nn

from resprout.types import PruningMask


@torch.no_grad()
def apply_mask(network: nn.Module, mask: PruningMask) -> None:
    """Set every pruned weight to exactly +0.0, in place.

    Raises:
        ValueError: the mask names a parameter that the network lacks, or has another shape.
    """
    parameters = dict(network.named_parameters())
    for name, kept in mask.keep.items():
        if name not in parameters or parameters[name].shape != kept.shape:
            raise ValueError(f"the mask's {name} {list(kept.shape)} does not fit the network")
        parameters[name].masked_fill_(~kept.to(parameters[name].device), 0.0)
