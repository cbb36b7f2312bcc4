"""How one group of dreams is made, by method; what all groups of a set are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from resprout import precision
from resprout.recipe import DeepInversionSection, PaperSynthesisSection
from resprout.synthesis import deep_inversion, paper
from resprout.synthesis.engine import Watch
from resprout.synthesis.groups import Group, GroupResult
from resprout.types import BNStatistics, ModelInfo, Teacher

GroupSynthesizer = Callable[[Group, Watch], GroupResult]
Prepare = Callable[..., GroupSynthesizer]


@dataclass(frozen=True)
class Work:
    """What every group of a set is made from; with the group, it determines every bit of it on one kind of machine."""

    teacher: Teacher
    statistics: BNStatistics
    section: DeepInversionSection | PaperSynthesisSection
    seed: int

    @property
    def iterations(self) -> int:
        """How many a group takes."""
        return paper.ITERATIONS if isinstance(self.section, PaperSynthesisSection) else self.section.iterations

    def like(self, group: Group) -> GroupResult:
        """A result with the shapes, dtypes and names of curves that the group's has."""
        images = torch.empty(group.size, *self.teacher.info.input.shape)
        named = paper.CURVES
        if not isinstance(self.section, PaperSynthesisSection):
            named = deep_inversion.curves(self.section)
        curves = dict.fromkeys(named, torch.empty(self.iterations))
        return GroupResult(images, torch.empty(group.size, dtype=torch.int64), curves)

    def dtype(self, device: torch.device) -> torch.dtype:
        """What networks compute in there."""
        if isinstance(self.section, PaperSynthesisSection):
            return torch.float32
        return precision.resolve(self.section.precision, device, bfloat16=self.teacher.info.bfloat16)

    def on(self, device: torch.device) -> GroupSynthesizer:
        """What makes a group there; the network is moved once."""
        network = precision.frozen_copy(self.teacher.network, self.dtype(device), device)
        prepare = METHODS[self.section.method]
        return prepare(network, self.teacher.info, self.statistics.to(device), self.section, self.seed)


def _deep_inversion(
    network: nn.Module, info: ModelInfo, statistics: BNStatistics, section: DeepInversionSection, seed: int
) -> GroupSynthesizer:
    def one(group: Group, watch: Watch) -> GroupResult:
        return deep_inversion.synthesize_group(
            network, statistics, info.input, info.num_classes, section, group, seed=seed, watch=watch
        )

    return one


def _paper(
    network: nn.Module, info: ModelInfo, statistics: BNStatistics, section: PaperSynthesisSection, seed: int
) -> GroupSynthesizer:
    def one(group: Group, watch: Watch) -> GroupResult:
        return paper.synthesize_group(network, statistics, info.input, group, seed=seed, watch=watch)

    return one


METHODS: dict[str, Prepare] = {"deep_inversion": _deep_inversion, "paper": _paper}
