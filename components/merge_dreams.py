"""Component: all dreams from the shards that made them."""

from kfp import dsl

from components._digests import Digests
from components._image import on_cpu


@on_cpu()
def merge_dreams(
    shards: dsl.Input[list[dsl.Dataset]],
    digests: list,
    dreams: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> Digests:
    """Put the shards of dreams together; the result does not depend on how many there were.

    Args:
        shards: every share, in any order.
        digests: each share's, and those of what it was made from; in any order too.
        dreams: all dreams: those to train on, then those held out.
        metrics: how many there are, and each loss in the last iteration.
    """
    from components._metrics import log
    from resprout import artifacts, figures, synthesis
    from resprout.progress import print_notes

    paths = sorted((shard.path for shard in shards), key=artifacts.digest_of)
    expected = sorted(each["shard"] for each in digests)
    pairs = zip(paths, expected, strict=True)
    merged = synthesis.merge([artifacts.load_shard(path, sha256=digest) for path, digest in pairs])
    print_notes(synthesis.notes_on(merged.curves))
    made = artifacts.save_merged(merged, dreams.path, shards=paths, digests=expected)
    dreams.metadata.update({"display_name": f"{len(merged.images):,} dreams", "shards": len(paths)})
    log(metrics, figures.of_dreams(merged))
    return Digests({**{name: digests[0][name] for name in ("teacher", "statistics")}, "dreams": made})
