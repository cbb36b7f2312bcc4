"""How one group of dreams is made, by method; what all groups of a set are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from resprout import precision
from resprout.recipe import DeepInversionSection, PaperSynthesisSection
from resprout.synthesis import deep_inversion, paper
from resprout.synthesis.engine import Watch
from resprout.synthesis.groups import Group, GroupResult
from resprout.types import BNStatistics, Teacher

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

    def on(self, device: torch.device) -> GroupSynthesizer:
        """What makes a group there; the network is moved once."""
        prepare = METHODS[self.section.method]
        return prepare(self.teacher, self.statistics.to(device), self.section, self.seed, device)


def _deep_inversion(
    teacher: Teacher, statistics: BNStatistics, section: DeepInversionSection, seed: int, device: torch.device
) -> GroupSynthesizer:
    dtype = precision.resolve(section.precision, device, bfloat16=teacher.info.bfloat16)
    network = precision.frozen_copy(teacher.network, dtype, device)
    space, num_classes = teacher.info.input, teacher.info.num_classes

    def one(group: Group, watch: Watch) -> GroupResult:
        return deep_inversion.synthesize_group(
            network, statistics, space, num_classes, section, group, seed=seed, watch=watch
        )

    return one


def _paper(
    teacher: Teacher, statistics: BNStatistics, section: PaperSynthesisSection, seed: int, device: torch.device
) -> GroupSynthesizer:
    network = precision.frozen_copy(teacher.network, torch.float32, device)

    def one(group: Group, watch: Watch) -> GroupResult:
        return paper.synthesize_group(network, statistics, teacher.info.input, group, seed=seed, watch=watch)

    return one


METHODS: dict[str, Prepare] = {"deep_inversion": _deep_inversion, "paper": _paper}
