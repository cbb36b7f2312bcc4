"""Component: a masked copy of the teacher."""

from kfp import dsl

from components._digests import Digests
from components._image import on_gpu


@on_gpu()
def prune(
    teacher: dsl.Input[dsl.Model],
    dreams: dsl.Input[dsl.Dataset],
    digests: dict,
    section: dict,
    recovery: dict,
    seed: int,
    gpus: str,
    checkpoints: str,
    student: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> Digests:
    """Remove the weights that the recipe's criterion names, in one shot or in rounds with recovery in between.

    Args:
        teacher: the trained network.
        dreams: what criteria look at, and what rounds recover on; criteria of weights alone leave them unread.
        digests: of the artifacts that it reads.
        section: the recipe's pruning section.
        recovery: the recipe's recovery section, for the rounds before the last; {} where there is one.
        seed: the run's.
        gpus: how many it has asked for; "0" computes with what is there.
        checkpoints: where finished epochs are kept through a kill: a folder, or s3://BUCKET/PREFIX; "" for nowhere.
        student: a masked copy of the teacher, as the last pruning left it; with what was tried for `sparsity: auto`.
        metrics: how many weights are gone.
    """
    from components._metrics import log
    from resprout import artifacts, figures, recipe, rounds
    from resprout.devices import computed_on, devices
    from resprout.progress import print_lines, print_notes
    from resprout.storage.checkpoint import checkpoint_at

    device = devices(int(gpus))[0]
    settings = recipe.section("pruning", section)
    inputs = artifacts.records({"teacher": teacher.path, "dreams": dreams.path}, digests)
    with checkpoint_at(checkpoints) as checkpoint:
        pruned = rounds.prune_on_dreams(
            artifacts.load_teacher(teacher.path, sha256=digests["teacher"], allow_custom_code=True),
            artifacts.load_dreams(dreams.path, sha256=digests["dreams"]),
            settings,
            recipe.section("recovery", recovery),
            seed=seed,
            report=print_lines(),
            checkpoint=checkpoint,
            device=device,
        )
        made = artifacts.save_student(
            pruned.student,
            student.path,
            section=settings,
            seed=seed,
            inputs=inputs,
            about=figures.of_choice(pruned.choice),
            computed_on=computed_on([device]),
            resumed=checkpoint.resumed if checkpoint else (),
        )
    print_notes([*pruned.notes, *pruned.student.notes])
    named, made_in = figures.name_of_student("pruned", pruned.student), getattr(settings, "rounds", 1)
    student.metadata.update({**named, "method": settings.method, "rounds": made_in})
    log(metrics, figures.of_student(pruned.student))
    return Digests({**digests, "student": made})
