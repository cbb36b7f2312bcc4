"""Component: the numbers of the shards that synthesize dreams."""

from kfp import dsl

from components._image import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def plan_shards(section: dict, num_shards: int) -> list[int]:
    """Number the shards, once it is clear that each has something to do.

    Args:
        section: the recipe's synthesis section.
        num_shards: how many are wanted.
    """
    from resprout import recipe, synthesis

    return synthesis.shard_numbers(recipe.section("synthesis", section), num_shards)
