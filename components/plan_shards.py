"""Component: whether a run's inputs make sense together, and the numbers of the shards that synthesize dreams."""

from kfp import dsl

from components._image import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def plan_shards(
    teacher: dict,
    synthesis: dict,
    pruning: dict,
    recovery: dict,
    evaluation: dict,
    gate: dict,
    publishing: dict,
    collected: bool,
    student_aware: bool,
    pruned_on_dreams: bool,
    published: bool,
    num_shards: int,
) -> list[int]:
    """Number the shards, once it is clear that every later stage can do what it is told.

    Args:
        teacher: the recipe's section of that name, as are those up to publishing.
        synthesis: see teacher.
        pruning: see teacher.
        recovery: see teacher.
        evaluation: see teacher.
        gate: see teacher.
        publishing: see teacher.
        collected: whether labelled images take the place of dreams, of which there is no shard then.
        student_aware: whether synthesis is shown the pruned student.
        pruned_on_dreams: whether pruning gets to see the dreams.
        published: whether the result is published.
        num_shards: how many shards are wanted.
    """
    from resprout import recipe
    from resprout import synthesis as stage

    whole = recipe.from_sections(
        {
            "teacher": teacher,
            "synthesis": synthesis,
            "pruning": pruning,
            "recovery": recovery,
            "evaluation": evaluation,
            "gate": gate,
            "publishing": publishing,
        },
        collected=collected,
        student_aware=student_aware,
        pruned_on_dreams=pruned_on_dreams,
        published=published,
    )
    return stage.shard_numbers(whole.synthesis, num_shards)
