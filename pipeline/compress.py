"""The compression pipeline: the only description of the flow, run locally and on a cluster alike.

Each stage gets its own recipe section and the seed, no more: KFP's cache key holds every parameter, so that
changing one section leaves the other stages' results valid.
"""

from kfp import dsl

from components.evaluate import evaluate
from components.extract_statistics import extract_statistics
from components.fetch_teacher import fetch_teacher
from components.prune import prune
from components.publish import publish
from components.recover import recover
from components.synthesize import synthesize


@dsl.pipeline(name="resprout-compress", description="Prune a classifier and recover its accuracy without its data.")
def compress(
    teacher: dict,
    synthesis: dict,
    pruning: dict,
    recovery: dict,
    evaluation: dict,
    publishing: dict,
    seed: int = 0,
    student_aware: bool = False,
    published: bool = False,
    checkpoints: str = "",
):
    """Prune a teacher and bring the student's accuracy back on dreams.

    Args:
        teacher: the recipe's section of that name, as are the others up to publishing.
        synthesis: with a student_weight above 0, student_aware must be true.
        pruning: see teacher.
        recovery: see teacher.
        evaluation: see teacher.
        publishing: with an address to publish to, published must be true.
        seed: the one that all randomness comes from.
        student_aware: show the pruned student to synthesis; otherwise dreams do not depend on pruning.
        published: publish the result; otherwise it stays among the run's artifacts.
        checkpoints: where long stages keep their state through a kill: a folder, or s3://BUCKET/PREFIX; "" for nowhere.
    """
    fetched = fetch_teacher(section=teacher).outputs["teacher"]
    statistics = extract_statistics(teacher=fetched).outputs["statistics"]
    pruned = prune(teacher=fetched, section=pruning, seed=seed).outputs["student"]

    shared = {"teacher": fetched, "statistics": statistics, "section": synthesis, "seed": seed}
    with dsl.If(student_aware == True, name="student-aware"):  # noqa: E712 - KFP overloads ==
        aware = synthesize(**shared, checkpoints=checkpoints, student=pruned)
    with dsl.Else(name="student-blind"):
        blind = synthesize(**shared, checkpoints=checkpoints)
    dreams = dsl.OneOf(aware.outputs["dreams"], blind.outputs["dreams"])

    recovered = recover(
        teacher=fetched, student=pruned, dreams=dreams, section=recovery, seed=seed, checkpoints=checkpoints
    )
    evaluated = evaluate(
        teacher=fetched,
        statistics=statistics,
        dreams=dreams,
        pruned=pruned,
        repaired=recovered.outputs["repaired"],
        recovered=recovered.outputs["recovered"],
        section=evaluation,
    )
    with dsl.If(published == True, name="published"):  # noqa: E712 - KFP overloads ==
        publish(
            recovered=recovered.outputs["recovered"],
            evaluation=evaluated.outputs["evaluation"],
            report=evaluated.outputs["report"],
            section=publishing,
        )
