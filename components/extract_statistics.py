"""Component: what the teacher's BatchNorm layers remember of its training data."""

from kfp import dsl

from components._digests import Digests
from components._image import on_cpu


@on_cpu()
def extract_statistics(
    teacher: dsl.Input[dsl.Model], digests: dict, num_dreams: int, statistics: dsl.Output[dsl.Artifact]
) -> Digests:
    """Read the running statistics of every BatchNorm layer, and refuse more dreams of it than a stage can hold.

    Args:
        teacher: the trained network.
        digests: the teacher's.
        num_dreams: how many there will be; this stage has the memory of the one that puts them together.
        statistics: each layer's running mean and variance.
    """
    from resprout import artifacts, figures
    from resprout.room import check_room
    from resprout.statistics import extract

    inputs = artifacts.records({"teacher": teacher.path}, digests)
    # whether custom code may run was decided when the teacher was fetched, and the digest says that this is the one
    network = artifacts.load_teacher(teacher.path, sha256=digests["teacher"], allow_custom_code=True)
    check_room(num_dreams, network.info.input.shape)
    extracted = extract(network)
    made = artifacts.save_statistics(extracted, statistics.path, inputs=inputs)
    statistics.metadata.update(figures.name_of_statistics(extracted))
    return Digests({**digests, "statistics": made})
