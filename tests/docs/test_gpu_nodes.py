"""The lines that docs/gpu-nodes.md shows are lines of what its recipe compiles to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils import parse_quantity

from pipeline import command
from pipeline.placement import SMALL
from resprout.recipe import PlacementSection, Recipe
from resprout.recipe.placement import AT_SUBMIT, MAX_SHARDS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "gpu-nodes.md").read_text()


def blocks(mark: str) -> list[Any]:
    found = re.findall(rf"^<!-- {mark} -->\n```yml\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    assert found, mark
    return [yaml.safe_load(text) for text in found]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    shown = yaml.safe_load(re.findall(r"^```yaml\n(placement:.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)[0])
    return Recipe.model_validate({"name": "shown", "teacher": {"source": "teacher"}, **shown})


@pytest.fixture(scope="module")
def compiled(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    command.compile_to(path, recipe, "compress")
    return list(yaml.safe_load_all(path.read_text()))


def missing(shown: Any, real: Any, path: str = "") -> list[str]:
    """Where `shown` says something that `real` does not; lists are compared item by item."""
    if isinstance(shown, dict) and isinstance(real, dict):
        return [line for key in shown for line in missing(shown[key], real.get(key), f"{path}/{key}")]
    if isinstance(shown, list) and isinstance(real, list) and len(shown) == len(real):
        return [line for index, item in enumerate(shown) for line in missing(item, real[index], f"{path}/{index}")]
    return [] if shown == real else [f"{path}: shown {shown!r}, compiled {real!r}"]


def test_the_pipelines_lines_are_those_that_are_compiled(compiled: list[Any]):
    assert [line for block in blocks("spec") for line in missing(block, compiled[0])] == []


def test_the_platforms_lines_are_those_that_are_compiled(compiled: list[Any]):
    executors = compiled[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    shown = blocks("platform")
    assert len(shown) == 2
    for block in shown:
        assert missing(block, executors) == []
        assert all(set(block[name]) <= set(executors[name]) for name in block)


def test_a_line_that_is_wrong_is_noticed(compiled: list[Any]):
    (block,) = blocks("spec")
    block["root"]["dag"]["tasks"]["recover"]["retryPolicy"]["maxRetryCount"] = 9
    assert missing(block, compiled[0]) == ["/root/dag/tasks/recover/retryPolicy/maxRetryCount: shown 9, compiled 2"]


def test_what_may_be_said_for_each_run_is_named(compiled: list[Any]):
    (row,) = re.findall(r"^\| (`num_shards`.*?) \|", DOCUMENT, flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == AT_SUBMIT
    assert set(compiled[0]["root"]["inputDefinitions"]["parameters"]["placement"]["defaultValue"]) <= AT_SUBMIT


def test_what_stages_ask_for_is_what_they_are_said_to():
    def row(name: str) -> list[str]:
        (found,) = re.findall(rf"^\| {name} \|(.*)\|$", DOCUMENT, flags=re.MULTILINE)
        return [cell.strip() for cell in found.split("|")]

    section = PlacementSection()
    with_gpu = [section.gpu_stage_cpus, section.gpu_stage_memory.replace("Gi", " GiB")]
    assert row("synthesis")[:2] == row("pruning, recovery")[:2] == with_gpu
    assert row("the others")[:2] == [section.cpu_stage_cpus, section.cpu_stage_memory.replace("Gi", " GiB")]
    assert ", ".join(SMALL) == "plan, gate, publish"
    assert all(cores == "100m" and parse_quantity(memory) <= 2**30 for cores, memory in SMALL.values())
    assert f"There are {MAX_SHARDS} shards at most" in DOCUMENT
