"""What `resprout run` and `resprout compile` do, once their words have been understood."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from pipeline import recipes
from pipeline.advice import advice
from pipeline.placement import compiled_in
from pipeline.run_folder import RunFolder, folder_for
from pipeline.runners import run as run_in
from pipeline.watch import screen_for
from resprout import __version__
from resprout import recipe as recipe_module
from resprout.errors import RecipeError, ResproutError
from resprout.files import check_writable, write_atomically
from resprout.recipe import ImagesSection, PlacementSection, Recipe, TeacherSection
from resprout.recipe.form import refuse_placeholders, refuse_secrets, to_inputs
from resprout.recipe.placement import CALLERS

HEADER = """# The compression pipeline, to upload in the KFP UI. Made by `resprout compile`.
# What each input means is said below, at root.inputDefinitions.
"""
# What an upload runs when nothing is changed: a teacher that any cluster with a way to the internet can fetch.
UNCHANGED = Recipe(name="resnet18", teacher=TeacherSection(source="torchvision://resnet18?weights=IMAGENET1K_V1"))
# The same for images of one's own, of which there is no address that everybody has.
WITH_IMAGES = UNCHANGED.model_copy(update={"synthesis": ImagesSection(data="")})


def load(path: Path, overrides: Sequence[str], *, allow_images: bool = True) -> Recipe:
    """A recipe from its file, with some fields changed.

    Args:
        path: the file.
        overrides: changes, as `recipes.override` takes them.
        allow_images: whether the file may choose images and secrets; the changes may.

    Raises:
        RecipeError: it is wrong, or chooses what it may not.
    """
    recipe = recipe_module.load(path)
    if not allow_images:
        _refuse_images(recipe, path, [change.partition("=")[0].strip() for change in overrides])
    return recipes.override(recipe, overrides)


def _refuse_images(recipe: Recipe, path: Path, changed: Sequence[str]) -> None:
    usual = PlacementSection()
    for name in CALLERS:
        value = getattr(recipe.placement, name)
        if value != getattr(usual, name) and not {"placement", f"placement.{name}"} & {*changed}:
            told = value if isinstance(value, str) else json.dumps(value)
            raise RecipeError(
                f"{path.name}, placement.{name}: a recipe's file may not choose it: {told}",
                why="an image is a program that runs with the run's credentials, and a secret's name decides which",
                now=f"say it yourself: --set {shlex.quote(f'placement.{name}={told}')}; or --allow-images, for a "
                "recipe that you trust as you would a script",
            )


def compile_to(path: Path, recipe: Recipe, kind: str) -> None:
    """Write a pipeline as KFP's YAML; the same bytes each time.

    Args:
        path: the file.
        recipe: what the pipeline's inputs are unless a run says otherwise.
        kind: compress, compress-images or scan.

    Raises:
        RecipeError: it holds {{, which a cluster would fill in, or an address with a secret.
    """
    refuse_placeholders(recipe)
    refuse_secrets(recipe)
    compiler = _kfp().compiler
    from pipeline.compress import pipeline

    with write_atomically(path) as temporary:
        named = temporary.with_suffix(".yaml")  # the compiler looks at the suffix
        try:
            made = pipeline(kind, compiled_in(recipe.placement))
            compiler.Compiler().compile(made, str(named), pipeline_parameters=to_inputs(recipe, kind))
            documents = list(yaml.safe_load_all(named.read_text()))
        finally:
            named.unlink(missing_ok=True)
        _make_smaller(documents[0])
        # KFP writes the keys of a mapping in another order each time
        temporary.write_text(HEADER + yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True, width=120))


def compile_placed(path: Path, placement: PlacementSection, kind: str) -> None:
    """Write a pipeline for a placement: of recipes, only what is compiled in, so that many share it."""
    unchanged = WITH_IMAGES if kind == "compress-images" else UNCHANGED
    compile_to(path, unchanged.model_copy(update={"placement": compiled_in(placement)}), kind)


def _make_smaller(spec: Any) -> None:
    """Take out of a compiled pipeline what nothing reads: each part of it is in a run's state up to six times.

    Descriptions of components' inputs, which KFP does not show, and requests that kfp 2.17 writes as tasks' inputs
    beside those that its driver reads.
    """
    for component in spec["components"].values():
        _drop_descriptions(component)
        for task in component.get("dag", {"tasks": {}})["tasks"].values():
            _drop_requests(task, spec)
    for task in spec["root"]["dag"]["tasks"].values():
        _drop_requests(task, spec)


def _drop_descriptions(part: Any) -> None:
    if isinstance(part, dict):
        part.pop("description", None)
        for inner in part.values():
            _drop_descriptions(inner)


def _drop_requests(task: Any, spec: Any) -> None:
    known = spec["components"][task["componentRef"]["name"]].get("inputDefinitions", {}).get("parameters", {})
    given = task.get("inputs", {}).get("parameters", {})
    for name in [name for name in given if name not in known and "runtimeValue" in given[name]]:
        del given[name]


def run(recipe: Recipe, *, runs: Path, output: Path | None, plain: bool, in_containers: bool = False) -> None:
    """Run a recipe on this machine, showing what happens.

    Raises:
        ResproutError: with what, why and now.
        KeyboardInterrupt: after having said what was kept and how to go on.
    """
    _kfp()
    folder = RunFolder(output) if output else folder_for(recipe, runs)
    folder.refuse_foreign(recipe)
    console = Console(file=sys.stdout)  # the stream itself: KFP's output is redirected around it
    if folder.set_aside():
        told = f"until this run has a result, that of the run before is in {folder.earlier}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    check_data_exists(recipe)
    check_addresses(recipe)
    _check_places(folder, recipe)
    about = [header(recipe, folder, in_containers), *advice(recipe)]
    console.print("\n".join(about), highlight=False, markup=False, soft_wrap=True)
    if kept := folder.kept():
        console.print(f"going on from {' and '.join(kept)}", highlight=False, markup=False)
    screen = screen_for(console, plain=plain)
    try:
        run_in(recipe, folder, screen, in_containers=in_containers)
    except KeyboardInterrupt:
        screen.close()
        console.print(interrupted(folder, recipe.placement.checkpoints), highlight=False, markup=False, soft_wrap=True)
        raise
    finally:
        screen.close()
    _conclude(folder, recipe, console)


def _check_places(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse a run's folder, and one for its checkpoints, in which nothing could be kept."""
    checkpoints = recipe.placement.checkpoints or ""
    for place in (folder.path, *([Path(checkpoints)] if checkpoints.startswith("/") else [])):
        check_writable(place)


def check_data_exists(recipe: Recipe) -> None:
    """Refuse labelled images that are not there before anything expensive."""
    named = {
        "synthesis": (recipe.training_data, "or choose another synthesis.method: dreams need no data"),
        "evaluation": (recipe.evaluation.data, "or leave it out: held-out dreams still give a verdict"),
    }
    for section, (data, otherwise) in named.items():
        if data is not None and not data.startswith("s3://") and not Path(data).exists():
            raise ResproutError(
                f"{section}.data {data} does not exist",
                why=f"paths in a recipe are relative to where you are, {Path.cwd()}",
                now=f"correct it, {otherwise}",
            )


def check_addresses(recipe: Recipe) -> None:
    """Refuse an address where there is nothing, storage or a key that cannot be used, and a version that exists."""
    from resprout import signing, storage
    from resprout.storage import builder, lookup

    lookup.plan(recipe)
    if key := builder.signing_key():
        signing.check_key(key)
    if (recipe.placement.checkpoints or "").startswith("s3://"):
        bucket = storage.ObjectAddress.parse(recipe.placement.checkpoints or "").bucket
        storage.Storage(storage.required()).check(bucket)


def header(recipe: Recipe, folder: RunFolder, in_containers: bool = False) -> str:
    """`resprout 0.1.0   recipe demo   seed 0   2 CPU cores, bfloat16   runs/demo-7f3a`."""
    from resprout import precision

    device = precision.best_device()
    first = recipe.recovery if recipe.training_data else recipe.synthesis  # of the stages that compute for long
    dtype = str(precision.resolve(getattr(first, "precision", "float32"), device)).removeprefix("torch.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    where = f"{cores} CPU core{'s' if cores != 1 else ''}" if device.type == "cpu" else f"{device.type} GPU"
    parts = [f"resprout {__version__}", f"recipe {recipe.name}", f"seed {recipe.seed}", f"{where}, {dtype}"]
    return "   ".join([*parts, *(["in containers"] if in_containers else []), str(folder.path)])


def interrupted(folder: RunFolder, checkpoints: str | None) -> str:
    """What was kept, and the command that goes on from there."""
    again = shlex.join(["resprout", *sys.argv[1:]])
    if checkpoints:
        return f"interrupted\n  kept: what the stage at work had finished, in {checkpoints}\n  now: {again}"
    kept = " and ".join(folder.kept())
    if not kept:
        return f"interrupted\n  kept: nothing yet, no long stage had finished a part\n  now: {again}   starts again"
    return f"interrupted\n  kept: {kept}, in {folder.path}\n  now: {again}   goes on from there"


def _conclude(folder: RunFolder, recipe: Recipe, console: Console) -> None:
    from resprout import artifacts
    from resprout.evaluation import table, verdict

    evaluation = artifacts.load_evaluation(folder.path / "evaluation")
    model = folder.path / "model"
    lines = [
        "",
        *table(evaluation),
        verdict(evaluation),
        "",
        f"report  {folder.path / 'report.html'}",
        f"model   {model}/  (resprout models show {shlex.quote(str(model))})",
        f"digest  {artifacts.digest_of(model)}  (resprout verify {shlex.quote(str(folder.path))})",
        *_published(folder, recipe),
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _published(folder: RunFolder, recipe: Recipe) -> list[str]:
    path = folder.path / "publication.json"
    if recipe.publishing.to is None or not path.exists():  # nowhere, or in a store that went with the run
        return []
    return [f"published  {json.loads(path.read_text())['address']}"]


def _kfp() -> Any:
    try:
        import kfp
        import kfp.compiler
    except ImportError as error:
        raise ResproutError(
            f"Kubeflow Pipelines cannot be imported: {error}",
            why="the pipeline runs on it, on a laptop too",
            now="pip install 'resprout[pipeline]'",
        ) from None
    return kfp
