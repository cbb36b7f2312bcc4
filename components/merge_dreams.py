"""Component: all dreams from the shards that made them."""

from kfp import dsl

from components._image import on_cpu


@on_cpu()
def merge_dreams(
    shards: dsl.Input[list[dsl.Dataset]], dreams: dsl.Output[dsl.Dataset], metrics: dsl.Output[dsl.Metrics]
):
    """Put the shards of dreams together; the result does not depend on how many there were.

    Args:
        shards: every share, in any order.
        dreams: all dreams: those to train on, then those held out.
        metrics: how many there are, and each loss in the last iteration.
    """
    from components._metrics import log
    from resprout import artifacts, figures, synthesis
    from resprout.progress import print_notes

    paths = [shard.path for shard in shards]
    merged = synthesis.merge([artifacts.load_shard(path) for path in paths])
    print_notes(synthesis.notes_on(merged.curves))
    artifacts.save_merged(merged, dreams.path, shards=paths)
    dreams.metadata.update({"display_name": f"{len(merged.images):,} dreams", "shards": len(paths)})
    log(metrics, figures.of_dreams(merged))
