"""Component: the teacher, from wherever the recipe says it is, checked and as an artifact."""

from typing import NamedTuple

from kfp import dsl

from components._image import on_cpu


class Fetched(NamedTuple):
    """The teacher's digest by its name, as of `Digests`; and where it was fetched from."""

    digests: dict
    fetched_from: str


@on_cpu()
def fetch_teacher(
    section: dict, identity: str, teacher: dsl.Output[dsl.Model], metrics: dsl.Output[dsl.Metrics]
) -> Fetched:
    """Fetch the teacher and refuse what cannot be worked with.

    Args:
        section: the recipe's teacher section.
        identity: which bytes the run was planned with; other bytes are refused. KFP's cache goes by it.
        teacher: the trained network.
        metrics: how large it is.
    """
    from components._metrics import log
    from resprout import artifacts, figures, planning, recipe, sources, storage
    from resprout.progress import print_lines, print_notes

    settings = recipe.section("teacher", section)
    fetched = sources.fetch(settings, report=print_lines(), stored=storage.stored)
    planning.check_unchanged(settings.source, identity, storage.identity)
    print_notes(fetched.notes)
    made = artifacts.save_teacher(fetched, teacher.path, section=settings)
    teacher.metadata.update(figures.name_of_teacher(fetched))
    log(metrics, figures.of_teacher(fetched))
    return Fetched({"teacher": made}, sources.fetched_from(settings))
