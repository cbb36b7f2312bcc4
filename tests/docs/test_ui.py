"""docs/ui.md and the picture of the graph say what the compiled pipeline says."""

from __future__ import annotations

import copy
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from resprout import figures
from resprout.types import Evaluation, ModelCost, ModelScore
from tests.pipeline.compiled import read

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "ui.md"
COMPILED = ROOT / "pipeline" / "compress.yaml"


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    return next(yaml.safe_load_all(COMPILED.read_text()))


@pytest.fixture(scope="module")
def graph() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "graph.py"))


def test_the_table_of_inputs_is_the_pipelines(spec: dict[str, Any]):
    script = runpy.run_path(str(ROOT / "docs" / "inputs_reference.py"))
    assert script["page"](PAGE.read_text(), spec) == PAGE.read_text(), "run: make format"


def test_every_artifact_that_a_task_leaves_is_explained(spec: dict[str, Any]):
    (table,) = re.findall(r"<!-- artifacts:begin -->\n(.*?)<!-- artifacts:end -->", PAGE.read_text(), flags=re.DOTALL)
    task, shown = "", set()
    for row in table.splitlines()[2:]:
        first, artifact, kind, meaning = (cell.strip(" `") for cell in row.strip("|").split("|"))
        task = first or task
        shown.add((task, artifact, kind))
        assert meaning
    assert shown == {
        (re.sub(r"-\d+$", "", component["executorLabel"].removeprefix("exec-")), name, kind)
        for component in spec["components"].values()
        if "executorLabel" in component
        for name, made in component.get("outputDefinitions", {}).get("artifacts", {}).items()
        for kind in [made["artifactType"]["schemaTitle"].removeprefix("system.")]
    }


def test_every_metric_that_is_named_is_logged():
    cost = ModelCost(parameters=100, nonzero_parameters=25, sparsity=0.75, dense_macs=1000, effective_macs=250)
    an_evaluation = Evaluation((ModelScore("recovered", 0.9, 0.1, top1=0.8),), {"recovered": cost}, 10, 10, ("a", "b"))
    named = set(re.findall(r"`((?:num_test|num_held|recovered)_\w+)`", PAGE.read_text()))
    assert named
    assert named <= set(figures.of_evaluation(an_evaluation))


def test_the_picture_is_of_the_pipeline_that_is_compiled(spec: dict[str, Any], graph: dict[str, Any]):
    assert graph["svg"](spec) == graph["PICTURE"].read_text(), "run: make format"
    drawn = {name for edge in graph["edges"](spec) for name in edge[:2]}
    assert drawn == {stage.component for stage in read(COMPILED)}
    assert graph["gpu_stages"](spec) == {"synthesize", "prune", "recover"}


def test_the_picture_shows_who_gets_the_labelled_test_set(spec: dict[str, Any], graph: dict[str, Any]):
    edges = graph["edges"](spec)
    assert [edge.target for edge in edges if edge.source == "fetch-test-set" and edge.artifact] == ["evaluate"]
    assert ("gate", "publish", False) in edges


def test_a_stage_that_has_no_place_in_the_picture_is_noticed(spec: dict[str, Any], graph: dict[str, Any]):
    more = copy.deepcopy(spec)
    more["components"]["comp-gate"]["executorLabel"] = "exec-another"
    with pytest.raises(KeyError, match="another"):
        graph["svg"](more)


def test_pictures_are_small_enough_to_load_at_once():
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 300_000, picture
