"""Component: your own labelled images in the place of dreams, from wherever the recipe says they are."""

from kfp import dsl

from components._digests import Digests
from components._image import on_cpu


@on_cpu()
def collect_images(
    teacher: dsl.Input[dsl.Model],
    digests: dict,
    section: dict,
    identity: str,
    seed: int,
    dreams: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> Digests:
    """Draw labelled images, and hand them on as every later stage takes dreams; refuse those that do not fit.

    Args:
        teacher: says which classes and what shape the images must have.
        digests: the teacher's, and those that go along with the images' own.
        section: the recipe's synthesis section.
        identity: which bytes the run was planned with, as of a teacher.
        seed: the run's.
        dreams: real images: those to train on, then those held out.
        metrics: how many there are.
    """
    from components._metrics import log
    from resprout import artifacts, collecting, figures, planning, recipe, storage
    from resprout.progress import print_lines, print_notes

    settings = recipe.section("synthesis", section)
    info = artifacts.teacher_info(teacher.path, sha256=digests["teacher"])
    images = collecting.collect(settings, info=info, seed=seed, stored=storage.stored, report=print_lines())
    planning.check_unchanged(settings.data, identity, storage.identity)
    print_notes(images.notes)
    # read from outside, as a test set is: the teacher only says what fits
    made = artifacts.save_dreams(images, dreams.path, input=info.input, section=settings, seed=seed)
    dreams.metadata.update(figures.name_of_images(images))
    log(metrics, figures.of_dreams(images))
    return Digests({**digests, "dreams": made})
