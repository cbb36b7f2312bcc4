"""Component: the labelled test set, from wherever the recipe says it is, for evaluation alone."""

from kfp import dsl

from components._digests import Digests
from components._image import on_cpu


@on_cpu()
def fetch_test_set(
    teacher: dsl.Input[dsl.Model],
    digests: dict,
    section: dict,
    identity: str,
    test_set: dsl.Output[dsl.Dataset],
) -> Digests:
    """Fetch the labelled test set, if the recipe names one, and refuse one that does not fit the teacher.

    Args:
        teacher: says which classes and what shape the images must have.
        digests: the teacher's.
        section: the recipe's evaluation section.
        identity: which bytes the run was planned with, as of a teacher.
        test_set: the images and their labels, or none.
    """
    from resprout import artifacts, datasets, figures, planning, recipe, storage
    from resprout.progress import print_lines, print_notes

    settings = recipe.section("evaluation", section)
    info = artifacts.teacher_info(teacher.path, sha256=digests["teacher"])
    images = datasets.fetch(settings, info=info, stored=storage.stored, report=print_lines())
    planning.check_unchanged(settings.data or "", identity, storage.identity)
    print_notes(images.notes if images else ())
    made = artifacts.save_test_set(images, test_set.path, section=settings)
    test_set.metadata.update(figures.name_of_test_set(images))
    return Digests({"test_set": made})
