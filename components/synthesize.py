"""Component: dream images from the teacher's statistics, or one worker's share of them."""

from kfp import dsl

from components._digests import Digests
from components._image import on_gpu


@on_gpu()
def synthesize(
    teacher: dsl.Input[dsl.Model],
    statistics: dsl.Input[dsl.Artifact],
    digests: dict,
    section: dict,
    seed: int,
    share: str,
    gpus: str,
    checkpoints: str,
    shard: dsl.Output[dsl.Dataset],
) -> Digests:
    """Synthesize dreams, on every GPU of the pod; no image depends on their number, nor on that of the shards.

    Args:
        teacher: the trained network.
        statistics: what the dreams are to match.
        digests: the teacher's and the statistics'.
        section: the recipe's synthesis section.
        seed: the run's.
        share: which share of the dreams to make, as `2/3`.
        gpus: how many it has asked for; "0" computes with what is there.
        checkpoints: where finished groups are kept through a kill: a folder, or s3://BUCKET/PREFIX; "" for nowhere.
        shard: this share.
    """
    from resprout import artifacts, figures, recipe, synthesis
    from resprout.devices import computed_on, devices
    from resprout.progress import print_lines
    from resprout.sharding import parse
    from resprout.storage.checkpoint import checkpoint_at

    used = devices(int(gpus))
    shard_index, num_shards = parse(share)
    settings = recipe.section("synthesis", section)
    inputs = artifacts.records({"teacher": teacher.path, "statistics": statistics.path}, digests)
    network = artifacts.load_teacher(teacher.path, sha256=digests["teacher"], allow_custom_code=True)
    with checkpoint_at(checkpoints) as checkpoint:
        made = synthesis.synthesize_shard(
            network,
            artifacts.load_statistics(statistics.path, sha256=digests["statistics"]),
            settings,
            seed=seed,
            shard_index=shard_index,
            num_shards=num_shards,
            devices=used,
            report=print_lines(),
            checkpoint=checkpoint,
        )
        digest = artifacts.save_shard(
            made,
            shard.path,
            input=network.info.input,
            section=settings,
            seed=seed,
            inputs=inputs,
            computed_on=computed_on(used),
            resumed=checkpoint.resumed if checkpoint else (),
        )
    shard.metadata.update(figures.name_of_shard(shard_index, num_shards))
    return Digests({**digests, "shard": digest})
