"""A run that publishes its result in real object storage, and what `resprout models` finds there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.embedded_storage import BUCKET
from resprout import artifacts
from resprout.types import Teacher
from tests.pipeline.warm import run_warm

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("storage_configured")]


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{request.node.name}"


@pytest.fixture
def recipe(tmp_path: Path, tiny_teacher: Teacher, prefix: str) -> Path:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    fields: dict[str, Any] = {
        "teacher": {"source": str(tmp_path / "teacher")},
        "synthesis": {"num_images": 16, "num_held_out": 8, "group_size": 8, "iterations": 2},
        "recovery": {"epochs": 1, "batch_size": 8},
        "publishing": {"to": prefix},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def run(recipe: Path, *words: str) -> tuple[int, str]:
    return run_warm(recipe, "--runs", recipe.parent / "runs", *words)


def models(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_run_publishes_and_others_find_it(recipe: Path, prefix: str, tmp_path: Path):
    exit_code, output = run(recipe)
    assert exit_code == 0, output
    (folder,) = (tmp_path / "runs").iterdir()
    digest = artifacts.digest_of(folder / "model")
    address = f"{prefix}/tiny/{digest[:12]}"
    assert f"published  {address}" in output
    assert json.loads((folder / "publication.json").read_text())["address"] == address
    secret = os.environ["RESPROUT_STORAGE_SECRET_KEY"]
    assert secret not in output + (folder / "log.txt").read_text() + (folder / "recipe.yaml").read_text()

    exit_code, listed = models("ls", prefix)
    assert exit_code == 0, listed
    assert [line.split()[:2] for line in listed.splitlines()] == [["name", "version"], ["tiny", digest[:12]]]
    exit_code, shown = models("show", address)
    assert exit_code == 0, shown
    assert f"digest      {digest}" in shown

    assert models("get", address, tmp_path / "fetched")[0] == 0
    assert artifacts.digest_of(tmp_path / "fetched" / "model") == digest
    assert (tmp_path / "fetched" / "report.html").read_bytes() == (folder / "report.html").read_bytes()
    assert (tmp_path / "fetched" / "metrics.json").read_bytes() == (folder / "metrics.json").read_bytes()
    exit_code, refused = models("get", address, tmp_path / "fetched")
    assert exit_code == 1
    assert "nothing is overwritten" in refused

    exit_code, again = run(recipe, "--set", f"publishing.version={digest[:12]}")
    assert exit_code == 1
    assert "a published version never changes" in again
    assert "dreams" not in again, "refused before the work"


def test_where_nothing_is_published(prefix: str):
    assert models("ls", prefix) == (0, f"nothing is published below {prefix}\n")
    exit_code, refused = models("show", f"{prefix}/tiny/1")
    assert exit_code == 1
    assert "is not published" in refused
    assert models("show", f"s3://{BUCKET}/tiny")[0] == 1


def test_a_bucket_that_is_missing_is_told_before_the_work(recipe: Path):
    exit_code, output = run(recipe, "--set", "publishing.to=s3://not-there/models")
    assert exit_code == 1
    assert "the bucket does not exist" in output
    assert "dreams" not in output


def test_no_storage_is_told_before_the_work(recipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RESPROUT_STORAGE_ENDPOINT")
    exit_code, output = run(recipe)
    assert exit_code == 1
    assert "no object storage is configured" in output
