"""`resprout gate`, and the gate at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.embedded_storage import Server
from resprout.storage import ObjectAddress, Storage, publish
from tests.pipeline.running import run

METRICS = {"teacher.top1": 0.9, "recovered.top1": 0.88, "recovered.agreement": 0.9, "recovered.sparsity": 0.75}


def gate(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["gate", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("teacher: {source: nowhere}\ngate: {max_top1_drop_points: 2.5, min_sparsity: 0.7}\n")
    return path


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "metrics.json"
    path.parent.mkdir()
    path.write_text(json.dumps(METRICS))
    return path


def test_a_result_that_keeps_its_limits_passes(recipe: Path, metrics: Path):
    for result in (metrics, metrics.parent):
        code, output, _ = gate(recipe, result)
        assert code == 0
        assert output.startswith("**Gate passed**")


def test_one_that_does_not_fails_and_ci_is_told_why(recipe: Path, metrics: Path, tmp_path: Path):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    written = ("--junit", tmp_path / "gate.xml", "--markdown", summary, "--json", tmp_path / "gate.json")

    code, output, _ = gate(recipe, metrics, "--set", "gate.max_top1_drop_points=1", *written)

    assert code == 1
    assert "| `max_top1_drop_points` | at most 1 points | 2.00 points | **broken** |" in output
    assert ElementTree.parse(tmp_path / "gate.xml").getroot().attrib["failures"] == "1"
    assert json.loads((tmp_path / "gate.json").read_text())["passed"] is False
    assert summary.read_text() == "before\n" + output


def test_wrong_usage_and_wrong_recipes_are_2(recipe: Path, metrics: Path, tmp_path: Path):
    assert gate(recipe)[0] == 2
    code, _, error = gate(recipe, metrics, "--set", "gate.max_drop=1")
    assert code == 2
    assert "gate.max_drop: no such field" in error
    assert gate(tmp_path / "none.yaml", metrics)[0] == 2


@pytest.mark.parametrize("content", [None, "not JSON", "{}", "[1]"])
def test_metrics_that_cannot_be_read_are_4(recipe: Path, tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    code, _, error = gate(recipe, tmp_path)
    assert code == 4
    assert error.startswith("error: ")
    assert "  now: " in error


def test_what_was_not_measured_is_4(recipe: Path, metrics: Path):
    metrics.write_text(json.dumps({"recovered.sparsity": 0.8}))
    code, output, _ = gate(recipe, metrics)
    assert code == 4
    assert "cannot tell" in output


@pytest.mark.usefixtures("storage_configured")
def test_a_published_version_is_judged_where_it_lies(recipe: Path, server: Server, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    prefix = ObjectAddress("resprout", f"tests/{tmp_path.name}")
    publish(Storage(server.settings), prefix, "net", "1", {"file": tmp_path / "file"}, about={"metrics": METRICS})

    assert gate(recipe, f"{prefix}/net/1")[0] == 0
    code, _, error = gate(recipe, f"{prefix}/net/2")
    assert code == 4
    assert "is not published" in error


@pytest.mark.slow
def test_a_run_whose_result_breaks_its_promise_fails_is_not_published_and_kept(
    unbroken: tuple[Path, Path, str], tmp_path: Path
):
    recipe, _, _ = unbroken
    quick = ("--set", "synthesis.iterations=2", "--set", "recovery.epochs=1", "--set", "gate.min_sparsity=0.7")

    exit_code, output = run(recipe, "--output", tmp_path / "out", *quick)

    assert exit_code == 1
    assert "error: the result does not keep what its recipe promises: min_sparsity: at least 70 %" in output
    assert output.rstrip().endswith(f"kept: the result, which is in {tmp_path / 'out'}")
    assert (tmp_path / "out" / "model").is_dir()
    assert not (tmp_path / "out" / "publication.json").exists()
    assert gate(recipe, tmp_path / "out", "--set", "gate.min_sparsity=0.5")[0] == 0
