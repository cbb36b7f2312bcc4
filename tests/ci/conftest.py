"""A build's folder, a KFP that it submits to, and real object storage with a published result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.embedded_storage import Server
from resprout.storage import ObjectAddress, Storage, publish
from tests.ci.steps import with_command
from tests.pipeline.cluster.fake_kfp import FakeKfp, serving

TOKEN = "a-token-that-nobody-may-see"
METRICS = {"recovered.agreement": 0.9, "recovered.sparsity": 0.75}


@pytest.fixture
def kfp() -> Iterator[FakeKfp]:
    with serving(token=TOKEN) as fake:
        yield fake


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A checkout with a recipe, whose file has a name that a careless shell would trip over."""
    folder = tmp_path / "build"
    folder.mkdir()
    fields = {"teacher": {"source": "torchvision://resnet18"}, "gate": {"min_sparsity": 0.7}, "name": "lesions"}
    (folder / "my recipe; exit 7.yaml").write_text(yaml.safe_dump(fields))
    return folder


@pytest.fixture
def result(server: Server, tmp_path: Path) -> str:
    """The address of a published result."""
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    prefix = ObjectAddress("resprout", f"ci/{tmp_path.name}")
    (tmp_path / "manifest.json").write_text("{}")
    files = {"metrics.json": tmp_path / "metrics.json", "model/manifest.json": tmp_path / "manifest.json"}
    publish(Storage(server.settings), prefix, "lesions", "7", files, about={"metrics": METRICS})
    return f"{prefix}/lesions/7"


@pytest.fixture
def environment(kfp: FakeKfp, server: Server, tmp_path: Path) -> dict[str, str]:
    """What the owner of a build sets up: where, and as whom."""
    access_key, secret_key, _ = server.settings.credentials()
    return {
        **with_command(tmp_path / "bin"),
        "RESPROUT_KFP_HOST": kfp.url,
        "RESPROUT_KFP_TOKEN": TOKEN,
        "RESPROUT_STORAGE_ENDPOINT": server.settings.endpoint,
        "RESPROUT_STORAGE_ACCESS_KEY": access_key,
        "RESPROUT_STORAGE_SECRET_KEY": secret_key,
    }
