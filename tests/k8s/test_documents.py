"""What the documents say of the manifests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from resprout.storage import buckets
from tests.k8s.rendering import K8S, OVERLAYS, ROOT

DOCUMENTS = [
    K8S / "README.md",
    ROOT / "docs" / "install.md",
    ROOT / "docs" / "storage.md",
    ROOT / "docs" / "gpu-nodes.md",
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path):
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", document.read_text())
    assert links
    for file, heading in links:
        target = document.parent / file if file else document
        assert target.exists(), file
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            assert heading in {re.sub(r"[^a-z0-9 -]", "", it.lower()).replace(" ", "-") for it in headings}, heading


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_commands_name_are_there(document: Path):
    for path in re.findall(r"\bk8s/[\w./-]*\w", document.read_text()):
        assert (ROOT / path).exists(), path


def test_every_overlay_is_in_the_table():
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "install.md").read_text(), re.M)
    assert set(OVERLAYS) <= set(rows)
    assert set(OVERLAYS) == {path.name for path in (K8S / "overlays").iterdir()}


def test_the_buckets_that_are_shown_are_those_that_are_made(tmp_path: Path):
    (shown,) = re.findall(r"^```yml\n(buckets:.*?)^```", (ROOT / "docs" / "storage.md").read_text(), re.M | re.S)
    (tmp_path / "shown.yaml").write_text(shown)

    def without_names(file: Path) -> list[object]:
        made = [it.model_dump() for it in buckets.read(file)]
        for statement in (it for bucket in made if bucket["policy"] for it in bucket["policy"]["Statement"]):
            statement.pop("Sid", None)
        return list(made)

    assert without_names(tmp_path / "shown.yaml") == without_names(K8S / "storage" / "buckets.yaml")


def test_the_projected_token_is_for_kfp():
    blocks = re.findall(r"^```yml\n(.*?)^```", (ROOT / "docs" / "install.md").read_text(), re.M | re.S)
    (volume,) = (it for block in blocks for it in yaml.safe_load(block).get("volumes", ()))
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
