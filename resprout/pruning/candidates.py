"""Which weights may go, and which are there to choose from."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from resprout import precision
from resprout.errors import RecipeError, UnsupportedModelError

Alive = Mapping[str, Tensor]
"""Parameter name -> bool tensor of the weight's shape, True where the weight is not yet gone."""


@dataclass(frozen=True)
class Candidates:
    """The weights of convolutions and linear layers, by what may become of them.

    Args:
        weights: those that a mask covers: parameter name -> float32 tensor on the CPU, in definition order; a shared
            weight once.
        excluded: names of those that the recipe keeps whole.
        unreached: names of those on which no answer depends.
    """

    weights: Mapping[str, Tensor]
    excluded: tuple[str, ...]
    unreached: tuple[str, ...]


def candidates_of(network: nn.Module, shape: Iterable[int], exclude: Iterable[str] = ()) -> Candidates:
    """The weights that a mask may cover, and those that it leaves out.

    Args:
        network: any; is not changed.
        shape: of its images: (channels, height, width).
        exclude: globs over names of convolution and linear weights.

    Raises:
        RecipeError: a glob matches nothing, or nothing is left beside what the globs match.
        UnsupportedModelError: there is no convolution and no linear layer that an image reaches.
    """
    every, exclude = maskable(network), tuple(exclude)
    if not every:
        raise UnsupportedModelError(
            "the network has no convolution and no linear layer", why="only their weights can be pruned"
        )
    for pattern in exclude:
        _refuse_idle_pattern(pattern, every)
    excluded = tuple(name for name in every if any(fnmatchcase(name, pattern) for pattern in exclude))
    reached = reached_weights(network, shape)
    unreached = tuple(name for name in every if name not in reached)
    left = {name: weight for name, weight in every.items() if name in reached and name not in excluded}
    if not left and excluded:
        raise RecipeError(
            f"pruning.exclude {list(exclude)} matches every one of the {len(every)} maskable weights",
            why="nothing is left to prune",
            now="exclude fewer",
        )
    if not left:
        raise UnsupportedModelError(
            "no answer depends on the weights of any convolution or linear layer", why="only these can be pruned"
        )
    return Candidates({name: weight.detach().float().cpu() for name, weight in left.items()}, excluded, unreached)


def maskable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of all convolutions and linear layers by name, in definition order; a shared one once."""
    layers = {id(module.weight) for module in network.modules() if isinstance(module, _ConvNd | nn.Linear)}
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) in layers}


def reached_weights(network: nn.Module, shape: Iterable[int]) -> set[str]:
    """The maskable weights that the network's answers depend on, as gradients to them show.

    A layer may be used without its forward being run (`F.conv2d(x, self.conv.weight)`), or be run and not lead to the
    logits (an auxiliary head): hooks would see neither. Two images of noise are answered in evaluation mode; what only
    other images reach counts as not reached.
    """
    probe = copy.deepcopy(network).eval().requires_grad_(False)
    weights = maskable(probe)
    for weight in weights.values():
        weight.requires_grad_(True)
    dtype = next(probe.parameters()).dtype
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    with precision.sound_gradients(probe), torch.enable_grad():
        answers = probe(images)
        if answers.requires_grad:
            answers.sum().backward()
    return {name for name, weight in weights.items() if weight.grad is not None}


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
