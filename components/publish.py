"""Component: the result, where others find it."""

from kfp import dsl

from components._image import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def publish(
    recovered: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    report: dsl.Input[dsl.HTML],
    section: dict,
    publication: dsl.Output[dsl.Artifact],
):
    """Publish the recovered model, its metrics and its report as a version that never changes.

    Args:
        recovered: the model.
        evaluation: its metrics.
        report: its report.
        section: the recipe's publishing section.
        publication: where it was published: each file's name and digest.
    """
    from resprout import recipe, storage
    from resprout.progress import print_lines
    from resprout.storage.models import publish_model

    made = publish_model(
        storage.Storage(storage.required()),
        recipe.section("publishing", section),
        model=recovered.path,
        evaluation=evaluation.path,
        page=report.path,
        report=print_lines(),
    )
    storage.save_publication(made, publication.path)
    name = f"{made.name} {made.version}"
    publication.metadata.update({"display_name": name, "address": str(made.address), "files": len(made.files)})
