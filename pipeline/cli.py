"""The command line: `resprout run RECIPE` and what helps to write a recipe and to read a result."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pipeline import cluster_cli, storage_cli
from pipeline.options import AllowImages, Overrides, PipelineName, RecipeFile, Verbose, errors_told
from resprout import __version__

# torch and kfp take seconds to import: commands import them when they need them

EXIT_CODES = """Exit codes: 0 done; 1 refused or failed, with the reason; 2 wrong usage; 130 interrupted."""

app = typer.Typer(
    name="resprout",
    help=f"Prune a trained image classifier and bring its accuracy back without its data.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipe_app = typer.Typer(
    help="Recipes: what there is, what a field means, whether yours is right.", no_args_is_help=True
)
models_app = typer.Typer(
    help="Models: what can be built, what a run left behind, what was published.", no_args_is_help=True
)
app.add_typer(recipe_app, name="recipe")
app.add_typer(models_app, name="models")
app.add_typer(storage_cli.storage_app, name="storage")
app.add_typer(cluster_cli.runs_app, name="runs")


class Runner(str, Enum):
    """What runs the stages of a local run."""

    subprocess = "subprocess"
    docker = "docker"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"resprout {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Prune a trained image classifier and bring its accuracy back without its data."""


@app.command(epilog=EXIT_CODES)
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Where run folders go.")] = Path("runs"),
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder itself.", show_default="RUNS/NAME-HASH")
    ] = None,
    runner: Annotated[
        Runner, typer.Option(help="Each stage as a process of this machine's Python, or as a Docker container.")
    ] = Runner.subprocess,
    allow_images: AllowImages = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines even on a terminal.")] = False,
    verbose: Verbose = False,
) -> None:
    """Prune, recover and judge a teacher as a recipe says.

    The same command finds the same run folder again: after a kill or Ctrl-C it goes on from what is kept there.
    Paths in a recipe are relative to where you are.
    """
    from pipeline import command

    with errors_told(verbose):
        in_containers = runner is Runner.docker
        # processes have no image
        chosen = command.load(recipe, overrides or [], allow_images=allow_images or not in_containers)
        try:
            command.run(chosen, runs=runs, output=output, plain=plain, in_containers=in_containers)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@app.command(name="compile")
def compile_pipeline(
    recipe: Annotated[
        Path | None,
        typer.Argument(metavar="RECIPE", help="A recipe whose fields become the inputs' defaults.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    pipeline: PipelineName = None,
    allow_images: AllowImages = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the YAML.")] = Path(
        "pipeline.yaml"
    ),
) -> None:
    """Write the pipeline as KFP's YAML, to upload in the KFP UI."""
    from pipeline import command
    from resprout.recipe import PlacementSection
    from resprout.recipe.form import kind_of

    if overrides and recipe is None:
        raise typer.BadParameter("changes a recipe, and none is given", param_hint="--set")
    with errors_told():
        if recipe:
            chosen = command.load(recipe, overrides or [], allow_images=allow_images)
            command.compile_to(output, chosen, pipeline.value if pipeline else kind_of(chosen))
        else:
            command.compile_placed(output, PlacementSection(), pipeline.value if pipeline else "compress")
        typer.echo(f"wrote {output}")


@app.command(
    epilog="Exit codes: 0 every limit is kept; 1 one is broken; 2 wrong usage or recipe; 3 the run failed and left no "
    "result; 4 it cannot be told."
)
def gate(
    recipe: RecipeFile,
    result: Annotated[
        str,
        typer.Argument(
            metavar="DIR|FILE|s3://…",
            help="A run's folder, a metrics.json, or a published version.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the table, as to $GITHUB_STEP_SUMMARY.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write JSON.")] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="The digest that the model must have.", show_default=False)
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Hold a result against the limits of a recipe's gate section, for builds that are to fail."""
    from pipeline import command, gating

    with errors_told(verbose, exit_code=2):
        chosen = command.load(recipe, overrides or [])
    with errors_told(verbose, exit_code=gating.CANNOT_TELL):
        exit_code, table = gating.judge(
            chosen, result, junit=junit, markdown=markdown, json_file=json_file, sha256=sha256
        )
    typer.echo(table, nl=False)
    raise typer.Exit(exit_code)


@app.command(epilog="Exit codes: 0 everything is as it should be; 1 something is not, or there is nothing to verify.")
def verify(
    place: Annotated[
        str, typer.Argument(metavar="DIR|s3://…", help="A run's folder, or a published version.", show_default=False)
    ],
    sha256: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="The model's digest, as you kept it.", show_default=False)
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM; its owner must have signed all that is there.", show_default=False),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Say whether a result still holds what its run left, and what that shows: each byte, link and signature."""
    from pipeline import verifying

    with errors_told(verbose):
        if not verifying.run(place, sha256=sha256, public_key=public_key):
            raise typer.Exit(1)


app.command(epilog=cluster_cli.EXIT_CODES)(cluster_cli.submit)


@app.command(epilog=EXIT_CODES)
def scan(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|TEACHER", help="A run's folder, or a teacher's folder.", show_default=False),
    ],
    dreams: Annotated[
        Path | None,
        typer.Argument(metavar="DREAMS", help="With a teacher's folder: dreams of it.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where to write.", show_default="RUN/sensitivity"),
    ] = None,
    sparsity: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE", help="A share of a layer's weights to remove; repeat it.", show_default="0.5 to 0.98"
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Layers not to look at; may be repeated.")
    ] = None,
    repair_dreams: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Dreams to re-estimate BatchNorm on after each pruning; 0: do not.", show_default="256"
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Labelled images, to measure accuracy on too.")
    ] = None,
    max_images: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of these, at most so many.")] = None,
    custom_code: Annotated[
        bool, typer.Option("--allow-custom-code", help="The teacher may be built by your own function.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines even on a terminal.")] = False,
    verbose: Verbose = False,
) -> None:
    """Prune each layer alone, more and more of it, and show which can spare least.

    Agreement with the teacher is measured on held-out dreams; no labelled image is needed.
    """
    from pipeline import scanning

    given = {"sparsities": sparsity or None, "exclude": exclude or None, "repair_dreams": repair_dreams}
    with errors_told(verbose):
        try:
            scanning.run(
                source,
                dreams,
                output=output,
                settings={name: value for name, value in given.items() if value is not None},
                data=data,
                max_images=max_images,
                allow_custom_code=custom_code,
                plain=plain,
            )
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@app.command()
def doctor(
    bucket: Annotated[
        str | None,
        typer.Option(metavar="NAME[/PREFIX]", help="A bucket that must be usable, or what lies below a prefix of it."),
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Kubeflow Pipelines must be usable, as RESPROUT_KFP_HOST and others say.")
    ] = False,
) -> None:
    """Say what this machine or image has, from versions to GPUs and storage. Exit code 1 if a run cannot work."""
    from pipeline.doctor import findings

    found = list(findings(bucket, cluster=cluster))
    width = max(len(finding.what) for finding in found)
    for finding in found:
        typer.echo(f"{finding.what:<{width}}  {finding.value or 'fails'}")
        if finding.problem:
            typer.echo(f"error: {finding.what}: {finding.problem}", err=True)
    if any(finding.problem for finding in found):
        raise typer.Exit(1)


@recipe_app.command(name="list")
def list_recipes() -> None:
    """The recipes that come with Resprout."""
    from pipeline import recipes

    shipped = {path.stem: path for path in recipes.shipped()}
    shipped |= {f"ablations/{path.stem}": path for path in recipes.ablations()}
    width = max(map(len, shipped))
    for name, path in shipped.items():
        typer.echo(f"{name:<{width}}  {recipes.headline(path)}\n{'':<{width}}  {path}")


@recipe_app.command()
def show(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """A recipe with every default filled in."""
    from pipeline import command, recipes

    with errors_told():
        typer.echo(recipes.as_yaml(command.load(recipe, overrides or [])), nl=False)


@recipe_app.command()
def explain(
    field: Annotated[str | None, typer.Argument(metavar="FIELD", help="For example recovery.temperature.")] = None,
) -> None:
    """What a section or a field means; without one, all of them."""
    from pipeline import recipes

    with errors_told():
        typer.echo(recipes.explain(field or ""))


@recipe_app.command()
def schema() -> None:
    """The JSON Schema of a recipe, from which editors complete."""
    from pipeline import recipes

    typer.echo(recipes.schema())


@recipe_app.command()
def check(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Say whether a recipe can be run; every problem at once. Exit code 1 when not."""
    from pipeline import command
    from pipeline.advice import advice
    from resprout.planning import refuse_unmeasured

    with errors_told():
        chosen = command.load(recipe, overrides or [])
        refuse_unmeasured(chosen)
        typer.echo("\n".join([f"{recipe} is a valid recipe called {chosen.name}", *advice(chosen)]))


@models_app.command()
def architectures() -> None:
    """The architectures that a recipe can name; timm's come on top where timm is installed."""
    from resprout import models

    typer.echo("\n".join(models.names()))


@models_app.command(name="ls")
def list_models(
    prefix: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="Where models are published.")],
    verbose: Verbose = False,
) -> None:
    """Every published model below an address: name, version, accuracy, agreement with its teacher."""
    from pipeline import publications

    with errors_told(verbose):
        publications.list_all(prefix)


@models_app.command(name="get")
def get_model(
    address: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX/NAME/VERSION", help="A published version.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    sha256: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="The model's digest, as somebody told you; another is refused.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Fetch a published version; every file is checked against the digest it was published with."""
    from pipeline import publications

    with errors_told(verbose):
        publications.get(address, directory, sha256)


@models_app.command(name="sign")
def sign_model(
    address: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX/NAME/VERSION", help="A published version.")],
    verbose: Verbose = False,
) -> None:
    """Add a signature to a published version, after every byte was checked; those that are there stay.

    With the private key that RESPROUT_SIGNING_KEY names; without one, keyless with the identity of a CI job.
    """
    from pipeline import verifying

    with errors_told(verbose):
        verifying.sign(address)


@models_app.command(name="show")
def show_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR|s3://…", help="A teacher or student folder, as runs/NAME/model, or a published version."
        ),
    ],
    verbose: Verbose = False,
) -> None:
    """A model's size, sparsity and density per layer, and which bytes went into it; checks every digest."""
    from pipeline import inspection, publications

    with errors_told(verbose):
        if model.startswith("s3://"):
            publications.show(model)
        else:
            inspection.show(Path(model))


if __name__ == "__main__":
    sys.exit(app())
