"""Component: the teacher, from wherever the recipe says it is, checked and as an artifact."""

from kfp import dsl

from components._image import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def fetch_teacher(section: dict, teacher: dsl.Output[dsl.Model], metrics: dsl.Output[dsl.Metrics]):
    """Fetch the teacher and refuse what cannot be worked with.

    Args:
        section: the recipe's teacher section.
        teacher: the trained network.
        metrics: how large it is.
    """
    from resprout import artifacts, figures, recipe, sources, storage
    from resprout.progress import print_lines

    settings = recipe.section("teacher", section)
    fetched = sources.fetch(settings, report=print_lines(), stored=storage.stored)
    artifacts.save_teacher(fetched, teacher.path, section=settings)
    teacher.metadata.update(figures.name_of_teacher(fetched))
    for name, value in figures.of_teacher(fetched).items():
        metrics.log_metric(name, value)
