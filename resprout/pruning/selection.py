"""Which channels go, for a budget: step by step those that are missed least for what they save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resprout.pruning.groups import Group


@dataclass(frozen=True)
class Step:
    """So many of a group's channels go: those with the lowest scores of what it has left."""

    group: int
    channels: int


@dataclass
class Budget:
    """How many channels are left where, and the multiply-accumulates (MACs) of one image that follow.

    Args:
        groups: what goes together.
        uses: per layer, MACs for each pair of a channel that it takes and one that it gives.
        left: per layer, how many channels it takes and gives; a depthwise convolution takes 1.
        counts: per group, how many channels it has left.
    """

    groups: Sequence[Group]
    uses: Mapping[str, int]
    left: dict[str, list[int]]
    counts: list[int]

    def macs(self) -> int:
        """Of the whole network."""
        return self._macs(self.uses)

    def channels(self) -> int:
        """Of all groups."""
        return sum(self.counts)

    def after(self, steps: Iterable[Step]) -> Budget:
        """What is left after these steps; this one stays as it is."""
        left = {name: list(sides) for name, sides in self.left.items()}
        other = Budget(self.groups, self.uses, left, list(self.counts))
        for step in steps:
            other.take(step)
        return other

    def take(self, step: Step) -> None:
        """Remove the step's channels."""
        self._change(step.group, -step.channels)

    def give_back(self, step: Step) -> None:
        """Undo `take`."""
        self._change(step.group, step.channels)

    def saving(self, step: Step) -> int:
        """The MACs that would go with the step's channels."""
        layers = {member.layer for member in self.groups[step.group].members} & self.uses.keys()
        before = self._macs(layers)
        self.take(step)
        after = self._macs(layers)
        self.give_back(step)
        return before - after

    def _macs(self, layers: Iterable[str]) -> int:
        return sum(self.uses[name] * self.left[name][0] * self.left[name][1] for name in layers)

    def _change(self, group: int, channels: int) -> None:
        self.counts[group] += channels
        for member in self.groups[group].members:
            if member.layer in self.uses:
                self.left[member.layer][not member.inputs] += channels * member.index.shape[1]


def budget_of(network: nn.Module, groups: Sequence[Group], uses: Mapping[Any, int]) -> Budget:
    """That of a dense network.

    Args:
        uses: layer -> how often each of its weights is multiplied for one image, as `count_weight_uses` counts.
    """
    names = {module: name for name, module in network.named_modules()}
    return Budget(
        groups,
        {names[layer]: count * layer.weight[0, 0].numel() for layer, count in uses.items()},
        {names[layer]: [layer.weight.shape[1], layer.weight.shape[0]] for layer in uses},
        [group.channels for group in groups],
    )


def removal_order(budget: Budget, scores: Sequence[Tensor], round_to: int, *, by_macs: bool) -> list[Step]:
    """All steps there are, cheapest first: the least score per MAC that is saved, or per channel.

    A step leaves a group with a multiple of `round_to` channels, and never with none.

    Args:
        budget: of the dense network.
        scores: per group and channel, how much it is missed.
    """
    budget = budget.after(())
    ascending = [score.sort().values for score in scores]
    taken: list[Step] = []
    while True:
        steps = [step for group, count in enumerate(budget.counts) if (step := _next(group, count, round_to))]
        if not steps:
            break
        taken.append(min(steps, key=lambda step: _price(budget, ascending[step.group], step, by_macs)))
        budget.take(taken[-1])
    return taken


def steps_within(budget: Budget, order: Sequence[Step], size: Callable[[Budget], float], most: float) -> list[Step]:
    """The first steps that bring the network to a size of at most `most`, less those that turn out not to be needed.

    No step of the result can be left out without exceeding `most`. If all steps together are not enough, all of them.

    Args:
        budget: of the dense network.
        size: shrinks, or stays, with each step.
    """
    budget = budget.after(())
    taken: list[Step] = []
    for step in order:
        if size(budget) <= most:
            break
        budget.take(step)
        taken.append(step)
    needed: list[Step] = []
    for step in reversed(taken):
        budget.give_back(step)
        # a group's channels come back in the order opposite to that in which they went
        if any(other.group == step.group for other in needed) or size(budget) > most:
            budget.take(step)
            needed.insert(0, step)
    return needed


def fewest_steps(order: Sequence[Step], enough: Callable[[Sequence[Step]], bool]) -> Sequence[Step]:
    """The first steps that are enough, found by halving: as few as a question that is answered with noise can tell.

    Args:
        enough: whether some steps are; all of them must be.
    """
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(order[:middle]) else (middle + 1, high)
    return order[:high]


def kept_after(steps: Sequence[Step], scores: Sequence[Tensor]) -> list[Tensor]:
    """Per group, which channels stay: bool, shape (channels,); among equal scores, those that come first go first."""
    kept = []
    for group, score in enumerate(scores):
        removed = sum(step.channels for step in steps if step.group == group)
        stays = torch.ones(len(score), dtype=torch.bool)
        stays[score.argsort(stable=True)[:removed]] = False
        kept.append(stays)
    return kept


def _next(group: int, left: int, round_to: int) -> Step | None:
    channels = left % round_to or round_to
    return Step(group, channels) if left > channels else None


def _price(budget: Budget, ascending: Tensor, step: Step, by_macs: bool) -> float:
    gone = len(ascending) - budget.counts[step.group]
    missed = float(ascending[gone : gone + step.channels].sum())
    return missed / max(1, budget.saving(step) if by_macs else step.channels)
