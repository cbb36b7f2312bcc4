"""A recipe, sent to Kubeflow Pipelines: its pipeline uploaded once, a run created with its sections."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import kfp_server_api as kfp
import yaml

from pipeline import command
from pipeline.cluster.server import Server
from resprout import __version__, storage
from resprout.errors import ArtifactError, RecipeError, StorageAwayError, UnsupportedModelError
from resprout.recipe import Recipe
from resprout.recipe.form import KINDS, to_inputs
from resprout.storage import lookup

# the name of each kind of pipeline
PIPELINES = {kind: f"resprout-{kind}" for kind in KINDS}
EXPERIMENT = "resprout"


@dataclass(frozen=True)
class Submission:
    """A run that was created.

    Args:
        run_id, name: of the run.
        pipeline_id, version_id, version: of the pipeline that it runs.
        reused: whether that version was there before.
        link: where a person sees it; None where nobody said where the UI is.
        spec: the compiled pipeline.
        parameters: the run's.
    """

    run_id: str
    name: str
    pipeline_id: str
    version_id: str
    version: str
    reused: bool
    link: str | None
    spec: Mapping[str, Any]
    parameters: Mapping[str, Any]


def check_for_cluster(recipe: Recipe) -> None:
    """Refuse what only this machine has, before anything is sent.

    Raises:
        RecipeError: the teacher or labelled images are a path.
    """
    named = {
        "teacher.source": recipe.teacher.source,
        "synthesis.data": recipe.training_data,
        "evaluation.data": recipe.evaluation.data,
        "placement.checkpoints": recipe.placement.checkpoints,
    }
    for field, source in named.items():
        if source is not None and "://" not in source:
            raise RecipeError(
                f"{field} {source} is a path on this machine",
                why="the stages run in pods of the cluster, which do not see it",
                now=f"resprout storage put {source} s3://BUCKET/KEY, in storage that the cluster reaches, then "
                f"--set {field}=s3://BUCKET/KEY",
            )


def look_up(recipe: Recipe, tell: Callable[[str], None]) -> None:
    """Look the run's addresses up before a pod does, where the environment has credentials for object storage.

    Args:
        recipe: as its pipeline will read it.
        tell: shows a line: that something cannot be looked up from here.

    Raises:
        StorageError: there is nothing at an address, no such bucket, or the version is taken.
    """
    if storage.from_environment() is None:
        return
    try:
        lookup.plan(recipe)
    except (StorageAwayError, ArtifactError, UnsupportedModelError) as error:
        tell(f"not looked up from here, plan will do it: {error.what}")


def submit(
    recipe: Recipe,
    server: Server,
    kind: str,
    *,
    experiment: str = EXPERIMENT,
    name: str | None = None,
    service_account: str | None = None,
) -> Submission:
    """Create a run for a recipe.

    The pipeline is uploaded as a version named after its digest, unless it is there. The recipe's sections are the
    run's parameters, so that recipes share a version that differ in nothing that is compiled in.

    Args:
        recipe: see `check_for_cluster`.
        server: where to; it has been checked.
        kind: the pipeline, one of `PIPELINES`.
        experiment: what runs are grouped by in the UI.
        name: the run's; None: the recipe's, and the time.
        service_account: whom its pods run as; None: whom KFP says.

    Raises:
        ClusterError: KFP refused or did not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        command.compile_placed(file, recipe.placement, kind)
        compiled = file.read_bytes()
        version = f"resprout-{__version__}-{hashlib.sha256(compiled).hexdigest()[:12]}"
        about = "Prune a classifier and recover its accuracy without its data."
        pipeline_id = server.pipeline(PIPELINES[kind]) or server.create_pipeline(PIPELINES[kind], about)
        found = server.version(pipeline_id, version)
        version_id = found or server.upload_version(pipeline_id, version, file, f"resprout {__version__}")
    parameters = to_inputs(recipe, kind)
    key = uuid.uuid4().hex
    run = kfp.V2beta1Run(
        experiment_id=server.experiment(experiment),
        display_name=name or f"{recipe.name} {datetime.now(timezone.utc):%Y-%m-%d %H:%M}",
        description=f"resprout {__version__}, recipe {recipe.name}, submission {key}",
        pipeline_version_reference=kfp.V2beta1PipelineVersionReference(
            pipeline_id=pipeline_id, pipeline_version_id=version_id
        ),
        runtime_config=kfp.V2beta1RuntimeConfig(parameters=parameters),
        service_account=service_account,
    )
    run_id = str(server.create_run(run, key).run_id)
    return Submission(
        run_id=run_id,
        name=run.display_name,
        pipeline_id=pipeline_id,
        version_id=version_id,
        version=version,
        reused=found is not None,
        link=server.settings.link(run_id),
        spec=next(yaml.safe_load_all(compiled)),
        parameters=parameters,
    )
