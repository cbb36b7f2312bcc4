"""Component: a masked copy of the teacher."""

from kfp import dsl

from components._image import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def prune(
    teacher: dsl.Input[dsl.Model],
    section: dict,
    seed: int,
    student: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Remove the weights that the recipe's criterion names.

    Args:
        teacher: the trained network.
        section: the recipe's pruning section.
        seed: the run's.
        student: a masked copy of the teacher.
        metrics: how many weights are gone.
    """
    from resprout import artifacts, figures, pruning, recipe

    settings = recipe.section("pruning", section)
    pruned = pruning.prune(artifacts.load_teacher(teacher.path, allow_custom_code=True), settings, seed=seed)
    artifacts.save_student(pruned, student.path, section=settings, seed=seed, inputs={"teacher": teacher.path})
    student.metadata.update({**figures.name_of_student("pruned", pruned), "method": settings.method})
    for name, value in figures.of_student(pruned).items():
        metrics.log_metric(name, value)
