"""Component: the result, where others find it."""

from kfp import dsl

from components._image import on_cpu


@on_cpu()
def publish(
    recovered: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    report: dsl.Input[dsl.HTML],
    digests: dict,
    section: dict,
    publication: dsl.Output[dsl.Artifact],
):
    """Publish the recovered model, its metrics and its report as a version that never changes, if anywhere.

    Args:
        recovered: the model.
        evaluation: its metrics.
        report: its report.
        digests: of all three; what has another is not published.
        section: the recipe's publishing section.
        publication: where it was published, each file's name and digest; {} where publish_to is empty.
    """
    from pathlib import Path

    from resprout import outcome, recipe, storage
    from resprout.progress import print_lines
    from resprout.storage import builder
    from resprout.storage.models import publish_model

    settings = recipe.section("publishing", section)
    if settings.to is None:
        print("publish_to is empty: nothing is published, and the model is this run's artifact `recovered`")
        Path(publication.path).write_text("{}\n")
        publication.metadata["display_name"] = "not published"
        print(outcome.told("publish", {"address": None}))
        return
    key = builder.signing_key()
    print("a key to sign with is there" if key else "there is no key to sign with: what is published is not signed")
    made = publish_model(
        storage.Storage(storage.required().for_publishing()),
        settings,
        model=recovered.path,
        evaluation=evaluation.path,
        page=report.path,
        digests=digests,
        builder=builder.from_environment(),
        key=key,
        report=print_lines(),
    )
    storage.save_publication(made, publication.path)
    name = f"{made.name} {made.version}"
    publication.metadata.update({"display_name": name, "address": str(made.address), "files": len(made.files)})
    print(outcome.told("publish", {"address": str(made.address), "digest": digests["recovered"]}))
