"""How dreams are divided: into groups that are synthesized as a whole, and groups among shards. Without torch."""

from __future__ import annotations

from collections.abc import Iterator

from resprout.errors import RecipeError
from resprout.recipe import DeepInversionSection, ImagesSection, PaperSynthesisSection


def group_sizes(count: int, group_size: int) -> Iterator[int]:
    """The sizes of the groups that `count` images are made in.

    A last group of a single image is merged into its neighbour: one image has no batch statistics.
    """
    while count > 0:
        size = count if count <= group_size + 1 else group_size
        yield size
        count -= size


def shares(section: DeepInversionSection | PaperSynthesisSection | ImagesSection, num_shards: int) -> list[str]:
    """`1/3`, `2/3`, `3/3` for three shards, once it is clear that each has something to do.

    Where real images take the place of dreams there is none, however many are wanted.

    Raises:
        RecipeError: there are fewer groups of dreams than shards.
    """
    if isinstance(section, ImagesSection):
        return []
    counts = (section.num_images, section.num_held_out)
    groups = sum(len(list(group_sizes(count, section.group_size))) for count in counts)
    if not 1 <= num_shards <= groups:
        raise too_many_shards(num_shards, groups)
    return [f"{number}/{num_shards}" for number in range(1, num_shards + 1)]


def parse(share: str) -> tuple[int, int]:
    """Which shard of how many `2/3` is, the first being 0: (1, 3)."""
    number, _, count = share.partition("/")
    return int(number) - 1, int(count)


def too_many_shards(num_shards: int, num_groups: int) -> RecipeError:
    """What to say where a shard would have no group."""
    return RecipeError(
        f"placement.num_shards: {num_shards} shards cannot share {num_groups} groups of dreams",
        why="a group is synthesized as a whole, so that no image depends on the number of shards",
        now=f"use 1 to {num_groups} shards, or make synthesis.group_size smaller",
    )
