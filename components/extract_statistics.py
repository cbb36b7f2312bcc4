"""Component: what the teacher's BatchNorm layers remember of its training data."""

from kfp import dsl

from components._image import on_cpu


@on_cpu()
def extract_statistics(teacher: dsl.Input[dsl.Model], statistics: dsl.Output[dsl.Artifact]):
    """Read the running statistics of every BatchNorm layer.

    Args:
        teacher: the trained network.
        statistics: each layer's running mean and variance.
    """
    from resprout import artifacts, figures
    from resprout.statistics import extract

    # whether custom code may run was decided when the teacher was fetched
    extracted = extract(artifacts.load_teacher(teacher.path, allow_custom_code=True))
    artifacts.save_statistics(extracted, statistics.path, inputs={"teacher": teacher.path})
    statistics.metadata.update(figures.name_of_statistics(extracted))
