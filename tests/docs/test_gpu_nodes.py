"""The lines that docs/gpu-nodes.md shows are lines of what its recipe compiles to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import command
from pipeline.placement import parameters
from resprout.recipe import PlacementSection, Recipe

DOCUMENT = (Path(__file__).parents[2] / "docs" / "gpu-nodes.md").read_text()


def blocks(mark: str) -> list[Any]:
    found = re.findall(rf"^<!-- {mark} -->\n```yml\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    assert found, mark
    return [yaml.safe_load(text) for text in found]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    shown = yaml.safe_load(re.findall(r"^```yaml\n(placement:.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)[0])
    return Recipe.model_validate({"teacher": {"source": "teacher"}, **shown})


@pytest.fixture(scope="module")
def compiled(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    command.compile_to(path, recipe)
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


def test_every_input_that_is_named_is_one(compiled: list[Any]):
    inputs = compiled[0]["root"]["inputDefinitions"]["parameters"]
    (row,) = re.findall(r"^\| (`num_shards`.*?) \|", DOCUMENT, flags=re.MULTILINE)
    named = re.findall(r"`(\w+)`", row)
    assert set(named) == {*parameters(PlacementSection()), "checkpoints"}
    assert set(named) <= set(inputs)
