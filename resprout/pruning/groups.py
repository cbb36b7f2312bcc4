"""Channels that can only go together, as torch-pruning's dependency graph finds them (Fang et al., arXiv 2301.12900).

This is all that is asked of torch-pruning: which layers share a channel. What goes is decided elsewhere, and what is
stored is a plan of our own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from resprout.batchnorm import BatchNorm
from resprout.channels import is_cuttable, num_channels
from resprout.errors import UnsupportedModelError
from resprout.types import ChannelPlan


@dataclass(frozen=True)
class Member:
    """One side of one layer of a group.

    Args:
        layer: its module name.
        inputs: whether the channels are what the layer takes; else, what it gives.
        index: int64, shape (channels of the group, n): which of the layer's channels each of the group's is. n is
            above 1 where feature maps were flattened.
    """

    layer: str
    inputs: bool
    index: Tensor


@dataclass(frozen=True)
class Group:
    """Channels that run through several layers: to remove one, every member loses it."""

    members: tuple[Member, ...]

    @property
    def channels(self) -> int:
        return len(self.members[0].index)

    @property
    def name(self) -> str:
        """That of its first layer."""
        return self.members[0].layer


def find_groups(network: nn.Module, input_shape: tuple[int, int, int]) -> list[Group]:
    """The groups whose channels may go.

    Those stay out that reach a layer which cannot be cut (grouped convolutions other than depthwise ones,
    LayerNorm, parameters of a module of one's own), and those that no layer takes: they are the network's answer.

    Args:
        network: is not changed.
        input_shape: (channels, height, width).

    Raises:
        UnsupportedModelError: torch-pruning is missing, or cannot follow the network.
    """
    pruning = _torch_pruning()
    traced = copy.deepcopy(network).float().cpu().requires_grad_(True)
    graph = pruning.DependencyGraph()
    try:
        graph.build_dependency(traced, example_inputs=torch.zeros(1, *input_shape))
        found = list(graph.get_all_groups(root_module_types=[nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear]))
    except Exception as error:  # whatever its tracing stumbles over
        raise UnsupportedModelError(
            f"the channels of this network cannot be followed: torch-pruning met {type(error).__name__}: {error}",
            now="prune single weights instead, for example with pruning.method: global_magnitude",
        ) from error
    names = {module: name for name, module in traced.named_modules()}
    order = {name: position for position, name in enumerate(names.values())}
    groups = [group for each in found if (group := _group(graph, each, names, order)) is not None]
    taken = (group for group in groups if any(member.inputs for member in group.members))
    return sorted(taken, key=lambda group: order[group.name])


def plan_of(network: nn.Module, groups: Sequence[Group], kept: Sequence[Tensor]) -> ChannelPlan:
    """The plan that keeps these channels.

    Args:
        network: the dense one.
        kept: bool, shape (channels,), for each group.
    """
    sides: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for group, stays in zip(groups, kept, strict=True):
        for member in group.members if not stays.all() else ():
            size = num_channels(network.get_submodule(member.layer), int(member.inputs))
            mine = sides[member.inputs].setdefault(member.layer, torch.ones(size, dtype=torch.bool))
            mine[member.index[~stays].flatten()] = False
    return ChannelPlan(*sides)


def _torch_pruning() -> ModuleType:
    try:
        import torch_pruning
    except ImportError:
        raise UnsupportedModelError(
            "pruning.method: structured needs torch-pruning, which is not installed",
            why="it finds the layers that share channels; what it leads to loads without it",
            now="pip install torch-pruning   (or: pip install 'resprout[structured]')",
        ) from None
    module: ModuleType = torch_pruning
    return module


def _group(graph: Any, found: Any, names: dict[nn.Module, str], order: dict[str, int]) -> Group | None:
    """One of torch-pruning's groups as ours; None where one of its members cannot be cut."""
    sides: dict[tuple[str, bool], Member] = {}
    for item in found:
        target = item.dep.target.module
        if target not in names:
            if isinstance(target, nn.Parameter):
                return None
            continue  # an operation between layers: it keeps nothing of its own
        if not is_cuttable(target):
            return None
        inputs = not isinstance(target, BatchNorm) and not graph.is_out_channel_pruning_fn(item.dep.handler)
        index = _index(item.idxs, item.root_idxs, len(found[0].idxs))
        if index is None:
            return None
        sides[names[target], inputs] = Member(names[target], inputs, index)
    return Group(tuple(sorted(sides.values(), key=lambda member: (order[member.layer], member.inputs))))


def _index(own: list[int], root: list[int | None], channels: int) -> Tensor | None:
    """Per channel of the group, the layer's; None where torch-pruning lost track of which is which."""
    of: list[list[int]] = [[] for _ in range(channels)]
    for mine, channel in zip(own, root, strict=True):
        if channel is None or not 0 <= channel < channels:
            return None
        of[channel].append(mine)
    if len({len(mine) for mine in of}) != 1 or not of[0]:
        return None
    return torch.tensor([sorted(mine) for mine in of])
