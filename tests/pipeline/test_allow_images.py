"""Which code runs, and which credentials it gets, is said by whoever starts a run, and not by a recipe."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeline import command
from pipeline.cli import app
from resprout.errors import RecipeError

CHOICES = {
    "cpu_image": "evil.example/x:1",
    "gpu_image": f"evil.example/x@sha256:{'0' * 64}",
    "storage_secret": "resprout-storage-admin",
    "publishing_secret": "resprout-storage-admin",
    "checkpoint_secret": "mlpipeline-minio-artifact",
    "image_pull_secrets": ["another"],
}
WAYS = {
    "run": ["run", "--runner", "docker"],
    "submit": ["submit", "--host", "nowhere"],
    "compile": ["compile"],
}
REFUSED = "a recipe's file may not choose it"


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    monkeypatch.chdir(tmp_path)
    yield
    gc.collect()  # Docker's SDK leaves a socket that found nobody to its fate


def written(folder: Path, placement: dict[str, Any]) -> Path:
    recipe = folder / "theirs.yaml"
    recipe.write_text(yaml.safe_dump({"teacher": {"source": "torchvision://resnet18"}, "placement": placement}))
    return recipe


def started(way: str, folder: Path, placement: dict[str, Any], *more: str) -> Result:
    recipe = written(folder, placement)
    output = [] if way == "submit" else ["--output", str(folder / "out")]
    name, *options = WAYS[way]
    return CliRunner().invoke(app, [name, str(recipe), *options, *output, *more])


@pytest.mark.parametrize("field", CHOICES)
def test_a_recipes_file_chooses_neither_images_nor_secrets_and_its_reader_is_told_how_to(tmp_path: Path, field: str):
    recipe = written(tmp_path, {field: CHOICES[field]})

    with pytest.raises(RecipeError, match=rf"theirs\.yaml, placement\.{field}: {REFUSED}") as refused:
        command.load(recipe, ["seed=1"], allow_images=False)
    (advice,) = (line for line in str(refused.value).splitlines() if "now: " in line)
    (said, *_) = shlex.split(advice.partition("--set ")[2].replace(";", " "))
    loaded = command.load(recipe, [said], allow_images=False)

    assert loaded == command.load(recipe, [], allow_images=True)


@pytest.mark.parametrize(
    ("placement", "change"),
    [
        ({}, "placement.cpu_image=registry.example/x:1"),
        (
            {"cpu_image": "evil.example/x:1", "storage_secret": "resprout-storage"},
            "placement.cpu_image=my.example/x:1",
        ),
        (CHOICES, "placement={gpus: 2}"),
    ],
)
def test_whoever_starts_a_run_chooses_them(tmp_path: Path, placement: dict[str, Any], change: str):
    assert command.load(written(tmp_path, placement), [change], allow_images=False)


@pytest.mark.parametrize(("way", "field"), list(zip(WAYS, CHOICES, strict=False)))
def test_each_way_to_start_a_run_refuses_before_it_does_anything(tmp_path: Path, way: str, field: str):
    result = started(way, tmp_path, {field: CHOICES[field]})

    assert result.exit_code == (2 if way == "submit" else 1)
    assert f"theirs.yaml, placement.{field}: {REFUSED}" in result.output
    assert not (tmp_path / "out").exists()
    assert REFUSED not in started(way, tmp_path, {field: CHOICES[field]}, "--allow-images").output
