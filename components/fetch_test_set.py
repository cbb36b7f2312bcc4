"""Component: the labelled test set, from wherever the recipe says it is, for evaluation alone."""

from kfp import dsl

from components._image import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def fetch_test_set(
    teacher: dsl.Input[dsl.Model], section: dict, test_set: dsl.Output[dsl.Dataset], metrics: dsl.Output[dsl.Metrics]
):
    """Fetch the labelled test set, if the recipe names one, and refuse one that does not fit the teacher.

    Args:
        teacher: says which classes and what shape the images must have.
        section: the recipe's evaluation section.
        test_set: the images and their labels, or none.
        metrics: how many there are.
    """
    from resprout import artifacts, datasets, figures, recipe, storage
    from resprout.progress import print_lines

    settings = recipe.section("evaluation", section)
    info = artifacts.load_teacher(teacher.path, allow_custom_code=True).info
    images = datasets.fetch(settings, info=info, stored=storage.stored, report=print_lines())
    artifacts.save_test_set(images, test_set.path, section=settings)
    test_set.metadata.update(figures.name_of_test_set(images))
    for name, value in figures.of_test_set(images).items():
        metrics.log_metric(name, value)
