"""Component: what the teacher's BatchNorm layers remember of its training data."""

from kfp import dsl

from components._digests import Digests
from components._image import on_cpu


@on_cpu()
def extract_statistics(teacher: dsl.Input[dsl.Model], digests: dict, statistics: dsl.Output[dsl.Artifact]) -> Digests:
    """Read the running statistics of every BatchNorm layer.

    Args:
        teacher: the trained network.
        digests: the teacher's.
        statistics: each layer's running mean and variance.
    """
    from resprout import artifacts, figures
    from resprout.statistics import extract

    inputs = artifacts.records({"teacher": teacher.path}, digests)
    # whether custom code may run was decided when the teacher was fetched, and the digest says that this is the one
    extracted = extract(artifacts.load_teacher(teacher.path, sha256=digests["teacher"], allow_custom_code=True))
    made = artifacts.save_statistics(extracted, statistics.path, inputs=inputs)
    statistics.metadata.update(figures.name_of_statistics(extracted))
    return Digests({**digests, "statistics": made})
