"""Component: dream images from the teacher's statistics, or one worker's share of them."""

from typing import Optional

from kfp import dsl

from components._image import GPU_IMAGE


@dsl.component(base_image=GPU_IMAGE, install_kfp_package=False)
def synthesize(
    teacher: dsl.Input[dsl.Model],
    statistics: dsl.Input[dsl.Artifact],
    section: dict,
    seed: int,
    shard_index: int,
    num_shards: int,
    checkpoints: str,
    shard: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    student: Optional[dsl.Input[dsl.Model]] = None,
):
    """Synthesize dreams; with a pruned student, favour those on which it and the teacher disagree.

    Args:
        teacher: the trained network.
        statistics: what the dreams are to match.
        section: the recipe's synthesis section.
        seed: the run's.
        shard_index: which share of the dreams to make, from 0.
        num_shards: how many shares there are.
        checkpoints: where finished groups are kept through a kill: a folder, or s3://BUCKET/PREFIX; "" for nowhere.
        shard: this share.
        metrics: how many dreams it holds.
        student: the pruned student, for student-aware synthesis.
    """
    from resprout import artifacts, figures, recipe, synthesis
    from resprout.progress import print_lines
    from resprout.storage.checkpoint import checkpoint_at

    settings = recipe.section("synthesis", section)
    network = artifacts.load_teacher(teacher.path, allow_custom_code=True)
    with checkpoint_at(checkpoints) as checkpoint:
        made = synthesis.synthesize_shard(
            network,
            artifacts.load_statistics(statistics.path),
            settings,
            seed=seed,
            student=artifacts.load_student(student.path, allow_custom_code=True) if student else None,
            shard_index=shard_index,
            num_shards=num_shards,
            report=print_lines(),
            checkpoint=checkpoint,
        )
        inputs = {
            "teacher": teacher.path,
            "statistics": statistics.path,
            **({"student": student.path} if student else {}),
        }
        artifacts.save_shard(made, shard.path, input=network.info.input, section=settings, seed=seed, inputs=inputs)
    shard.metadata.update(figures.name_of_shard(shard_index, num_shards))
    for name, value in figures.of_shard(made).items():
        metrics.log_metric(name, value)
