"""Which weights may go, and how many at most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from resprout.errors import RecipeError, UnsupportedModelError

Alive = Mapping[str, Tensor] | None
"""Parameter name -> bool tensor of the weight's shape, True where the weight is not yet gone; none: all are there."""


def prunable_weights(network: nn.Module, exclude: Iterable[str] = ()) -> dict[str, Tensor]:
    """The weights that a mask may cover.

    Args:
        network: any.
        exclude: globs over names of convolution and linear weights; those that match stay out.

    Returns:
        Parameter name -> float32 tensor on the CPU, in definition order; a shared weight once.

    Raises:
        RecipeError: a glob matches nothing, or the globs together match everything.
        UnsupportedModelError: there is no convolution and no linear layer.
    """
    weights = _maskable(network)
    if not weights:
        raise UnsupportedModelError(
            "the network has no convolution and no linear layer", why="only their weights can be pruned"
        )
    exclude = tuple(exclude)
    for pattern in exclude:
        _refuse_idle_pattern(pattern, weights)
    left = {name: weight for name, weight in weights.items() if not any(fnmatchcase(name, p) for p in exclude)}
    if not left:
        raise RecipeError(
            f"pruning.exclude {list(exclude)} matches every one of the {len(weights)} maskable weights",
            why="nothing is left to prune",
            now="exclude fewer",
        )
    return {name: weight.detach().float().cpu() for name, weight in left.items()}


def _maskable(network: nn.Module) -> dict[str, nn.Parameter]:
    layers = {id(module.weight) for module in network.modules() if isinstance(module, _ConvNd | nn.Linear)}
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) in layers}


def _refuse_idle_pattern(pattern: str, names: Iterable[str]) -> None:
    names = list(names)
    if any(fnmatchcase(name, pattern) for name in names):
        return
    nearest = max(names, key=lambda name: SequenceMatcher(None, pattern, name).ratio())
    raise RecipeError(
        f"pruning.exclude: {pattern!r} matches no convolution or linear weight; the nearest is {nearest!r}",
        why="a glob must match a parameter's whole name, and what it should protect would be pruned",
        now=f"write {nearest!r}, or a glob such as {nearest.split('.')[0] + '.*'!r}",
    )


def refuse_dead_layers(keep: Mapping[str, Tensor], sparsity: float, method: str) -> None:
    """Raise RecipeError when a layer would lose all its weights, and with them every image's signal."""
    dead = [name for name, kept in keep.items() if not kept.any()]
    if not dead:
        return
    named = ", ".join(f"{name} ({keep[name].numel()})" for name in dead[:3])
    named += f" and {len(dead) - 3} more" if len(dead) > 3 else ""
    quoted = ", ".join(f'"{name}"' for name in dead[:3])
    other = "" if method == "lamp" else ", or set pruning.method to lamp, which empties a layer last of all"
    raise RecipeError(
        f"{method} at sparsity {sparsity:g} would remove all weights of {named}",
        why="nothing of an image would pass such a layer, and no training brings it back",
        now=f"lower pruning.sparsity, or add {quoted} to pruning.exclude{other}",
    )


def flat(alive: Alive) -> Tensor | None:
    """All layers' as one vector, in their order; None as it is."""
    return None if alive is None else torch.cat([left.flatten() for left in alive.values()])


def by_layer(kept: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A mask over all weights, one after the other, as one of each layer.

    Args:
        kept: bool, shape (number of weights,), in the order of `weights`.
        weights: parameter name -> tensor.

    Returns:
        Parameter name -> bool tensor of the weight's shape.
    """
    parts = torch.split(kept, [weight.numel() for weight in weights.values()])
    return {name: part.view(weight.shape).clone() for (name, weight), part in zip(weights.items(), parts, strict=True)}
