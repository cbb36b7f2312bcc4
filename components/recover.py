"""Component: the pruned student's accuracy brought back on dreams."""

from typing import Any

from kfp import dsl

from components._digests import Digests
from components._image import on_gpu


@on_gpu()
def recover(
    teacher: dsl.Input[dsl.Model],
    student: dsl.Input[dsl.Model],
    dreams: dsl.Input[dsl.Dataset],
    digests: dict,
    section: dict,
    seed: int,
    gpus: str,
    checkpoints: str,
    repaired: dsl.Output[dsl.Model],
    recovered: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> Digests:
    """Bring the pruned student's accuracy back on dreams, as the section says.

    Args:
        teacher: the trained network.
        student: the pruned one; no pruned weight comes back.
        dreams: what to train on, and what to judge epochs on.
        digests: of the artifacts that it reads.
        section: the recipe's recovery section.
        seed: the run's.
        gpus: how many it has asked for; "0" computes with what is there.
        checkpoints: where finished epochs are kept through a kill: a folder, or s3://BUCKET/PREFIX; "" for nowhere.
        repaired: the student with its BatchNorm re-estimated on dreams, the baseline that training must beat.
        recovered: the student that is the result.
        metrics: of the epoch that was kept.
    """
    from components._metrics import log
    from resprout import artifacts, figures, recipe, recovery
    from resprout.devices import computed_on, devices
    from resprout.progress import print_lines, print_notes
    from resprout.storage.checkpoint import checkpoint_at

    device = devices(int(gpus))[0]
    folders = {"teacher": teacher.path, "student": student.path, "dreams": dreams.path}
    inputs = artifacts.records(folders, digests)
    with checkpoint_at(checkpoints) as checkpoint:
        result = recovery.recover(
            artifacts.load_teacher(teacher.path, sha256=digests["teacher"], allow_custom_code=True),
            artifacts.load_student(student.path, sha256=digests["student"], allow_custom_code=True),
            artifacts.load_dreams(dreams.path, sha256=digests["dreams"]),
            recipe.section("recovery", section),
            seed=seed,
            report=print_lines(),
            checkpoint=checkpoint,
            device=device,
        )
        print_notes(result.notes)
        made: Any = {
            "section": result.section,
            "seed": seed,
            "inputs": inputs,
            "computed_on": computed_on([device]),
            "resumed": checkpoint.resumed if checkpoint else (),
        }
        about = {"curves": figures.of_curves(result.curves)}
        students = {
            "repaired": artifacts.save_student(result.repaired, repaired.path, kind="repaired", **made),
            "recovered": artifacts.save_student(
                result.recovered, recovered.path, kind="recovered", about=about, **made
            ),
        }
    repaired.metadata.update(figures.name_of_student("repaired", result.repaired))
    recovered.metadata.update(figures.name_of_student("recovered", result.recovered))
    log(metrics, result.metrics)
    return Digests({**digests, **students})
