"""Component: what is decided before anything is computed."""

from typing import NamedTuple

from components._image import on_cpu


class Plan(NamedTuple):
    """What a run's stages are told: each its section, which bytes it is to find, and what it asks the cluster for."""

    teacher: dict
    teacher_identity: str
    images_identity: str
    test_set_identity: str
    synthesis: dict
    num_dreams: int
    pruning: dict
    recovery: dict
    between_rounds: dict
    evaluation: dict
    gate: dict
    publishing: dict
    shards: list[str]
    checkpoints: str
    gpu_type: str
    gpus: str
    synthesis_gpus: str
    gpu_stage_cpus: str
    gpu_stage_memory: str
    gpu_tolerations: list
    gpu_affinity: dict


@on_cpu()
def plan(
    kind: str,
    teacher: str,
    seed: int,
    recipe: dict,
    placement: dict,
    images: str = "",
    test_set: str = "",
    sparsity: str = "",
    publish_to: str = "",
) -> Plan:
    """Read the whole recipe, refuse what cannot be run, resolve every address, hand each stage its section.

    Args:
        kind: the pipeline: compress, compress-images or scan.
        teacher: where it is; the input of that name, as are the others.
        seed: see teacher.
        recipe: everything that has no input of its own.
        placement: where GPU stages run, and what they ask for.
        images: labelled images in the place of dreams.
        test_set: a labelled test set.
        sparsity: the share of weights that go.
        publish_to: where the result is published.
    """
    import os

    from components._asked import asked
    from resprout.recipe import form, sections_of
    from resprout.storage import lookup

    inputs = {
        "teacher": teacher,
        "images": images,
        "test_set": test_set,
        "sparsity": sparsity,
        "publish_to": publish_to,
        "seed": seed,
        "recipe": recipe,
        "placement": placement,
    }
    read = form.from_inputs(kind, inputs)
    if "KFP_POD_NAME" in os.environ:  # on a cluster; whatever was typed into KFP's form is recorded there
        form.refuse_secrets(read)
    made = lookup.plan(read)
    print(made.as_text())
    sections = sections_of(made.recipe)
    return Plan(
        teacher=sections["teacher"],
        synthesis=sections["synthesis"],
        num_dreams=made.recipe.synthesis.num_images + made.recipe.synthesis.num_held_out,
        pruning=sections["pruning"],
        recovery=sections["recovery"],
        # in one round there is nothing between, and another recovery leaves the pruning as it is
        between_rounds=sections["recovery"] if getattr(made.recipe.pruning, "rounds", 1) > 1 else {},
        evaluation=sections["evaluation"],
        gate=sections["gate"],
        publishing=sections["publishing"],
        teacher_identity=made.teacher,
        images_identity=made.images,
        test_set_identity=made.test_set,
        shards=made.shards,
        checkpoints=made.recipe.placement.checkpoints or "",
        **asked(made.recipe.placement),
    )
