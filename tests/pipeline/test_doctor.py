from __future__ import annotations

import importlib.metadata
import tempfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pipeline import doctor
from pipeline.cli import app
from pipeline.embedded_storage import BUCKET, Server
from resprout import __version__
from tests.pipeline.cluster.fake_kfp import serving
from tests.resprout.storage.gateway import ignoring


def invoke(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["doctor", *words])
    return result.exit_code, result.stdout, result.stderr


def test_a_machine_that_can_do_the_work():
    exit_code, output, errors = invoke()
    lines = {line.split("  ")[0]: line for line in output.splitlines()}
    assert (exit_code, errors) == (0, "")
    assert __version__ in lines["resprout"]
    assert lines["torch"].split()[1] == torch.__version__.partition("+")[0]
    assert "storage" not in lines, "nobody asked"


@pytest.mark.usefixtures("storage_configured")
def test_storage_that_can_be_used():
    for words in (BUCKET, f"{BUCKET}/models", f"s3://{BUCKET}/models"):
        exit_code, output, _ = invoke("--bucket", words)
        assert exit_code == 0
        assert "can be listed and written to" in output


def test_storage_without_room(full: Server, monkeypatch: pytest.MonkeyPatch):
    access_key, secret_key, _ = full.settings.credentials()
    monkeypatch.setenv("RESPROUT_STORAGE_ENDPOINT", full.settings.endpoint)
    monkeypatch.setenv("RESPROUT_STORAGE_ACCESS_KEY", access_key)
    monkeypatch.setenv("RESPROUT_STORAGE_SECRET_KEY", secret_key)

    assert invoke("--bucket", BUCKET)[0] == 0
    exit_code, _, errors = invoke("--bucket", "second")

    assert exit_code == 1
    assert "has no room for it" in errors


@pytest.mark.usefixtures("storage_configured")
def test_storage_that_overwrites_what_it_is_asked_to_keep(monkeypatch: pytest.MonkeyPatch):
    with ignoring() as gateway:
        monkeypatch.setenv("RESPROUT_STORAGE_ENDPOINT", gateway.settings.endpoint)
        exit_code, _, errors = invoke("--bucket", "models/published")

    assert exit_code == 1
    assert "it ignores If-None-Match" in errors


@pytest.mark.usefixtures("storage_configured")
def test_storage_that_cannot():
    exit_code, _, errors = invoke("--bucket", "not-there")
    assert exit_code == 1
    assert "the bucket does not exist" in errors


def test_storage_that_nobody_configured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RESPROUT_STORAGE_ENDPOINT", raising=False)
    assert "no object storage is configured" in invoke("--bucket", BUCKET)[2]


def test_a_cluster_that_can_be_used_and_one_that_wants_a_token(monkeypatch: pytest.MonkeyPatch):
    with serving(token="any") as kfp:
        monkeypatch.setenv("RESPROUT_KFP_HOST", kfp.url)
        refused, _, errors = invoke("--cluster")
        monkeypatch.setenv("RESPROUT_KFP_TOKEN", "any")
        usable, output, _ = invoke("--cluster")

    assert (refused, usable) == (1, 0)
    assert "it wants a token, and has none" in errors
    assert f"{kfp.url}, Kubeflow Pipelines 2.17.0 (tried), resprout-compress is not there yet" in output


def test_a_cluster_of_a_version_that_nobody_tried(monkeypatch: pytest.MonkeyPatch):
    with serving(tag="2.99.0") as kfp:
        monkeypatch.setenv("RESPROUT_KFP_HOST", kfp.url)
        usable, output, _ = invoke("--cluster")

    assert usable == 0
    assert "Kubeflow Pipelines 2.99.0 (not tried by us: 2.17.0 was)" in output


def test_a_cluster_that_nobody_named(monkeypatch: pytest.MonkeyPatch):
    for name in ("RESPROUT_KFP_HOST", "KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert "nothing says where Kubeflow Pipelines is" in invoke("--cluster")[2]


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch):
    known = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("safetensors", "timm"):
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    exit_code, output, errors = invoke()
    assert exit_code == 1
    assert errors == "error: safetensors: Resprout cannot work without it\n", "timm is optional"
    assert "timm             not installed" in output


def test_a_limit_of_the_container_is_the_memory_that_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_memory", lambda: (64 * 2**30, 2**30))
    exit_code, output, errors = invoke()
    assert exit_code == 1
    assert "this container may use 1.0" in output
    assert "needs 2 GiB" in errors


def test_a_read_only_file_system(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(Path("/proc")))
    exit_code, _, errors = invoke()
    assert exit_code == 1
    assert "scratch: cannot be written" in errors
