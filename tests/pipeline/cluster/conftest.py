"""A Kubeflow Pipelines for tests, and the command line against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeline import command as pipeline_command
from pipeline.cli import app
from pipeline.cluster import command
from pipeline.cluster.asking import Connection
from resprout.recipe import PlacementSection
from tests.pipeline.cluster.fake_kfp import FakeKfp, serving

Resprout = Callable[..., Result]

RECIPE = {
    "teacher": {"source": "torchvision://resnet18?weights=IMAGENET1K_V1"},
    "recovery": {"method": "distillation", "epochs": 60},
    "gate": {"min_sparsity": 0.7},
}


@pytest.fixture(autouse=True)
def _no_cluster_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "NAMESPACE", "TOKEN", "TOKEN_FILE", "CA_FILE", "UI", "SERVICE_ACCOUNT"):
        monkeypatch.delenv(f"RESPROUT_KFP_{name}", raising=False)
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def _each_placement_is_compiled_once() -> Iterator[None]:
    # A placement always compiles to the same bytes, as tests/pipeline/test_graph.py holds; most tests here submit one.
    compiled: dict[tuple[str, str], bytes] = {}
    compile_placed = pipeline_command.compile_placed

    def once(path: Path, placement: PlacementSection, kind: str) -> None:
        key = (placement.model_dump_json(), kind)
        if key not in compiled:
            compile_placed(path, placement, kind)
            compiled[key] = path.read_bytes()
        path.write_bytes(compiled[key])

    with mock.patch.object(pipeline_command, "compile_placed", once):
        yield


@pytest.fixture
def kfp() -> Iterator[FakeKfp]:
    with serving() as fake:
        yield fake


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


@pytest.fixture
def resprout(kfp: FakeKfp, monkeypatch: pytest.MonkeyPatch) -> Resprout:
    """The command line; its pauses let time pass in the fake KFP, and nowhere else."""
    return command_line(kfp, monkeypatch)


def command_line(kfp: FakeKfp, monkeypatch: pytest.MonkeyPatch) -> Resprout:
    monkeypatch.setattr(command, "Connection", partial(Connection, sleep=kfp.sleep))
    monkeypatch.setenv("RESPROUT_KFP_HOST", kfp.url)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])
