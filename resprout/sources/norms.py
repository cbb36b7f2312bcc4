"""On how much of a network dreams rest."""

from __future__ import annotations

from torch import nn

from resprout.batchnorm import BatchNorm, batch_norm_layers
from resprout.wording import listed


def other_norm_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Every layer that normalises and keeps no statistics of its data, by dotted name: LayerNorm, GroupNorm and others.

    Told by the names of classes, since there is no base class of theirs.
    """
    known = batch_norm_layers(network)
    return {
        name: module
        for name, module in network.named_modules()
        if name not in known
        and "norm" in type(module).__name__.lower()
        and (isinstance(module, BatchNorm) or not any(module.children()))
    }


def notes_on_norms(network: nn.Module) -> tuple[str, ...]:
    """That dreams rest on a part of the network only, where others than BatchNorm layers normalise too."""
    known, others = len(batch_norm_layers(network)), other_norm_layers(network)
    if not others:
        return ()
    kinds = sorted({type(module).__name__ for module in others.values()})
    return (
        f"dreams rest on the {known} of {known + len(others)} normalising layers that keep statistics; "
        f"{listed(kinds)} keep none",
    )
