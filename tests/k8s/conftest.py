from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.k8s.rendering import K8S, OVERLAYS, ROOT, Object, render
from tests.pipeline.compiled import Stage, read


@pytest.fixture(autouse=True, scope="session")
def _kubectl() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which renders the overlays")


@pytest.fixture(scope="session")
def rendered(_kubectl: None) -> dict[str, list[Object]]:
    """Every overlay's objects."""
    return {name: render(K8S / "overlays" / name) for name in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def objects(overlay: str, rendered: dict[str, list[Object]]) -> list[Object]:
    return rendered[overlay]


@pytest.fixture(scope="session")
def stages() -> list[Stage]:
    """The stages of the pipelines that are committed."""
    return [stage for file in sorted((ROOT / "pipeline").glob("*.yaml")) for stage in read(file)]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folder k8s/, to change."""
    return Path(shutil.copytree(K8S, tmp_path / "k8s"))
