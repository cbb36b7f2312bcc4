"""Dreams are made in fixed groups, each with its own seed, so that the number of workers never changes an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resprout.checkpoints import Checkpoint, check_like
from resprout.errors import ArtifactError
from resprout.seeding import generator
from resprout.sharding import group_sizes
from resprout.types import DreamGroup, DreamSet, DreamShard

ENOUGH_ITERATIONS, HARDLY_FELL = 20, 0.9
"""After so many, a BatchNorm loss that is above this share of its first value hardly fell."""


@dataclass(frozen=True)
class Group:
    """Images synthesized together: the `index`-th group, `size` images starting at image `first`."""

    index: int
    first: int
    size: int
    held_out: bool

    def generator(self, seed: int) -> torch.Generator:
        """A CPU generator that belongs to this group alone."""
        return generator(seed, "synthesis", self.index)

    def targets(self, num_classes: int, generator: torch.Generator) -> Tensor:
        """Classes dealt in turn over the whole set, shuffled within the group: int64, shape (size,)."""
        dealt = torch.arange(self.first, self.first + self.size) % num_classes
        return dealt[torch.randperm(self.size, generator=generator)]


@dataclass(frozen=True)
class GroupResult:
    """One group's dreams: images in normalised space, their classes, and each loss's curve."""

    images: Tensor
    targets: Tensor
    curves: dict[str, Tensor]


Keep = Callable[[Group, GroupResult], None]
Make = Callable[[Sequence[Group], Keep], None]
"""Makes groups, in whichever order, and hands over each as it is done."""


def plan(num_images: int, num_held_out: int, group_size: int) -> list[Group]:
    """The groups of a whole set, training images first; the last group of each part may be smaller."""
    groups: list[Group] = []
    for start, count, held_out in ((0, num_images, False), (num_images, num_held_out, True)):
        for size in group_sizes(count, group_size):
            first = groups[-1].first + groups[-1].size if groups else start
            groups.append(Group(len(groups), first, size, held_out))
    return groups


def shard(groups: Sequence[Group], index: int, num_shards: int) -> list[Group]:
    """The `index`-th of `num_shards` runs of groups, as even as can be; may be empty when shards outnumber groups."""
    bounds = [round(part * len(groups) / num_shards) for part in (index, index + 1)]
    return list(groups[bounds[0] : bounds[1]])


def run(
    groups: Sequence[Group], make: Make, checkpoint: Checkpoint | None, key: str, like: Callable[[Group], GroupResult]
) -> list[GroupResult]:
    """Make the groups that no earlier run finished; the others come from the checkpoint.

    Args:
        like: a result with the shapes, dtypes and names of curves that a group's has.
    """
    recalled = {group.index: _recall(checkpoint, f"{key}-{group.index}", like(group)) for group in groups}
    found = {index: result for index, result in recalled.items() if result is not None}

    def keep(group: Group, result: GroupResult) -> None:
        if checkpoint is not None:
            checkpoint.save(f"{key}-{group.index}", _flatten(result), {})
        found[group.index] = result

    make([group for group in groups if group.index not in found], keep)
    return [found[group.index] for group in groups]


def shard_of(groups: Sequence[Group], results: Sequence[GroupResult], num_groups: int, num_classes: int) -> DreamShard:
    """What was synthesized of a whole set of `num_groups` groups."""
    return DreamShard(
        [
            DreamGroup(
                group.index, result.images.to(torch.float16).contiguous(), result.targets, group.held_out, result.curves
            )
            for group, result in zip(groups, results, strict=True)
        ],
        num_groups,
        num_classes,
    )


def merge(shards: Sequence[DreamShard]) -> DreamSet:
    """The whole set, whoever synthesized which of its groups; curves are averaged over images.

    Raises:
        ArtifactError: a group is missing, or there twice.
    """
    groups = sorted((group for shard in shards for group in shard.groups), key=lambda group: group.index)
    found, wanted = [group.index for group in groups], list(range(shards[0].num_groups))
    if found != wanted or any(shard.num_groups != len(wanted) for shard in shards):
        raise ArtifactError(
            f"{len(shards)} shards of dreams hold the groups {found}, not each of {len(wanted)} once",
            why="they are not the shards of one set",
            now="synthesize all of them with the same number of shards",
        )
    sizes = torch.tensor([len(group.images) for group in groups], dtype=torch.float32)
    curves = {
        name: (torch.stack([group.curves[name] for group in groups]) * sizes[:, None]).sum(0) / sizes.sum()
        for name in groups[0].curves
    }
    return DreamSet(
        images=torch.cat([group.images for group in groups]),
        targets=torch.cat([group.targets for group in groups]),
        num_held_out=sum(len(group.images) for group in groups if group.held_out),
        num_classes=shards[0].num_classes,
        curves=curves,
    )


def notes_on(curves: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What to know before dreams are trusted: that they hardly came to match the teacher's BatchNorm statistics.

    Args:
        curves: name -> float32, shape (iterations,).
    """
    curve = curves.get("bn", torch.zeros(0))
    if len(curve) < ENOUGH_ITERATIONS or not curve[-1] > HARDLY_FELL * curve[0]:
        return ()
    return (
        f"the BatchNorm loss hardly fell ({float(curve[0]):.3g} to {float(curve[-1]):.3g}): dreams may show little of "
        "the teacher's data; raise synthesis.iterations or synthesis.learning_rate, and check teacher.input.mean and "
        "teacher.input.std",
    )


def _flatten(result: GroupResult) -> dict[str, Tensor]:
    return {
        "images": result.images,
        "targets": result.targets,
        **{f"curve.{name}": curve for name, curve in result.curves.items()},
    }


def _recall(checkpoint: Checkpoint | None, key: str, like: GroupResult) -> GroupResult | None:
    if checkpoint is None:
        return None
    at_most = like.images.nbytes + like.targets.nbytes
    return checkpoint.load(key, lambda state: _result(state[0], like), at_most=at_most)


def _result(tensors: Mapping[str, Tensor], like: GroupResult) -> GroupResult:
    curves = {name.removeprefix("curve."): tensor for name, tensor in tensors.items() if name.startswith("curve.")}
    check_like(tensors, _flatten(like))
    return GroupResult(tensors["images"], tensors["targets"], curves)
