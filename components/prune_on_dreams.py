"""Component: a masked copy of the teacher, pruned with dreams in sight."""

from kfp import dsl

from components._image import GPU_IMAGE


@dsl.component(base_image=GPU_IMAGE, install_kfp_package=False)
def prune_on_dreams(
    teacher: dsl.Input[dsl.Model],
    dreams: dsl.Input[dsl.Dataset],
    section: dict,
    recovery: dict,
    seed: int,
    checkpoints: str,
    student: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Remove weights by a criterion that looks at dreams, or in rounds with recovery in between.

    Args:
        teacher: the trained network.
        dreams: what criteria look at, and what rounds recover on.
        section: the recipe's pruning section.
        recovery: the recipe's recovery section, for the rounds before the last.
        seed: the run's.
        checkpoints: where finished epochs are kept through a kill: a folder, or s3://BUCKET/PREFIX; "" for nowhere.
        student: a masked copy of the teacher, as the last pruning left it; with what was tried for `sparsity: auto`.
        metrics: how many weights are gone.
    """
    from resprout import artifacts, figures, recipe, rounds
    from resprout.progress import print_lines
    from resprout.storage.checkpoint import checkpoint_at

    settings = recipe.section("pruning", section)
    with checkpoint_at(checkpoints) as checkpoint:
        pruned = rounds.prune_on_dreams(
            artifacts.load_teacher(teacher.path, allow_custom_code=True),
            artifacts.load_dreams(dreams.path),
            settings,
            recipe.section("recovery", recovery),
            seed=seed,
            report=print_lines(),
            checkpoint=checkpoint,
        )
        inputs = {"teacher": teacher.path, "dreams": dreams.path}
        artifacts.save_student(
            pruned.student,
            student.path,
            section=settings,
            seed=seed,
            inputs=inputs,
            about=figures.of_choice(pruned.choice),
        )
    student.metadata.update(
        {
            **figures.name_of_student("pruned", pruned.student),
            "method": settings.method,
            "rounds": getattr(settings, "rounds", 1),
        }
    )
    for name, value in figures.of_student(pruned.student).items():
        metrics.log_metric(name, value)
