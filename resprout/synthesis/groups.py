"""Dreams are made in fixed groups, each with its own seed, so that the number of workers never changes an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from resprout.checkpoints import Checkpoint
from resprout.seeding import generator
from resprout.types import DreamSet


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


def plan(num_images: int, num_held_out: int, group_size: int) -> list[Group]:
    """The groups of a whole set, training images first; the last group of each part may be smaller.

    A last group of a single image is merged into its neighbour: one image has no batch statistics.
    """
    groups: list[Group] = []
    for start, count, held_out in ((0, num_images, False), (num_images, num_held_out, True)):
        for size in _sizes(count, group_size):
            first = groups[-1].first + groups[-1].size if groups else start
            groups.append(Group(len(groups), first, size, held_out))
    return groups


def _sizes(count: int, group_size: int) -> Iterator[int]:
    while count > 0:
        size = count if count <= group_size + 1 else group_size
        yield size
        count -= size


def shard(groups: Sequence[Group], index: int, num_shards: int) -> list[Group]:
    """The `index`-th of `num_shards` runs of groups, as even as can be; may be empty when shards outnumber groups."""
    bounds = [round(part * len(groups) / num_shards) for part in (index, index + 1)]
    return list(groups[bounds[0] : bounds[1]])


def run(
    groups: Sequence[Group], synthesize: Callable[[Group], GroupResult], checkpoint: Checkpoint | None, key: str
) -> list[GroupResult]:
    """Synthesize each group, or take it from the checkpoint where an earlier run finished it."""
    results = []
    for group in groups:
        result = _recall(checkpoint, f"{key}-{group.index}")
        if result is None:
            result = synthesize(group)
            if checkpoint is not None:
                checkpoint.save(f"{key}-{group.index}", _flatten(result), {})
        results.append(result)
    return results


def assemble(groups: Sequence[Group], results: Sequence[GroupResult], num_classes: int) -> DreamSet:
    """One set from its groups, in order; curves are averaged over images."""
    sizes = torch.tensor([group.size for group in groups], dtype=torch.float32)
    curves = {
        name: (torch.stack([result.curves[name] for result in results]) * sizes[:, None]).sum(0) / sizes.sum()
        for name in results[0].curves
    }
    return DreamSet(
        images=torch.cat([result.images for result in results]).to(torch.float16).contiguous(),
        targets=torch.cat([result.targets for result in results]),
        num_held_out=sum(group.size for group in groups if group.held_out),
        num_classes=num_classes,
        curves=curves,
    )


def merge(shards: Sequence[DreamSet]) -> DreamSet:
    """The whole set from its shards, in order."""
    sizes = torch.tensor([len(part.images) for part in shards], dtype=torch.float32)
    curves = {
        name: (torch.stack([part.curves[name] for part in shards]) * sizes[:, None]).sum(0) / sizes.sum()
        for name in shards[0].curves
    }
    return DreamSet(
        images=torch.cat([part.images for part in shards]),
        targets=torch.cat([part.targets for part in shards]),
        num_held_out=sum(part.num_held_out for part in shards),
        num_classes=shards[0].num_classes,
        curves=curves,
    )


def _flatten(result: GroupResult) -> dict[str, Tensor]:
    return {
        "images": result.images,
        "targets": result.targets,
        **{f"curve.{name}": curve for name, curve in result.curves.items()},
    }


def _recall(checkpoint: Checkpoint | None, key: str) -> GroupResult | None:
    state: Any = checkpoint.load(key) if checkpoint is not None else None
    if state is None:
        return None
    tensors, _ = state
    curves = {name.removeprefix("curve."): tensor for name, tensor in tensors.items() if name.startswith("curve.")}
    return GroupResult(tensors["images"], tensors["targets"], curves)
