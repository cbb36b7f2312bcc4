"""`resprout gate`, and the gate at the end of a run."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import NamedTuple

import pytest
from junitparser import Error, Failure, JUnitXml
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from torch import Tensor
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.embedded_storage import Server
from pipeline.run_folder import LOCK
from resprout import artifacts
from resprout.storage import ObjectAddress, Storage, publish
from resprout.types import Teacher
from tests.pipeline.running import write_recipe
from tests.pipeline.warm import run_warm

METRICS = {
    "teacher.top1": 0.9,
    "recovered.top1": 0.88,
    "recovered.agreement": 0.9,
    "recovered.sparsity": 0.75,
    "recovered.size_bytes": 3 * 2**19,
    "recovered.compressed_size_bytes": 2**19,
    "recovered.latency_ratio": 1.02,
}


def gate(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["gate", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


class Rendered(NamedTuple):
    """What a reader of Markdown sees: the words in bold outside tables, and each table's rows."""

    bold: list[str]
    tables: list[list[list[str]]]


def rendered(markdown: str) -> Rendered:
    root = SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(markdown))
    tables = [
        [[words(cell) for cell in row.children] for part in table.children for row in part.children]
        for table in root.children
        if table.type == "table"
    ]
    bold = [
        words(part)
        for block in root.children
        if block.type == "paragraph"
        for part in block.walk()
        if part.type == "strong"
    ]
    return Rendered(bold, tables)


def words(node: SyntaxTreeNode) -> str:
    return "".join(part.content for part in node.walk() if part.type in ("text", "code_inline"))


def read_junit(path: Path) -> dict[str, list[type]]:
    """Test case -> what went wrong in it; the counts that the file states are held against its cases."""
    report = JUnitXml.fromfile(str(path))
    stated = [(it.tests, it.failures, it.errors) for it in (report, *report)]
    for suite in report:
        suite.update_statistics()
    report.update_statistics()
    assert [(it.tests, it.failures, it.errors) for it in (report, *report)] == stated
    return {case.name: [type(result) for result in case.result] for suite in report for case in suite}


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
    written = ("--junit", tmp_path / "gate.xml", "--markdown", tmp_path / "gate.md", "--json", tmp_path / "gate.json")

    code, output, _ = gate(recipe, metrics, "--set", "gate.max_top1_drop_points=1", *written)

    assert code == 1
    assert "| `max_top1_drop_points` | at most 1 points | 2.00 points | **broken** |" in output
    assert read_junit(tmp_path / "gate.xml") == {"max_top1_drop_points": [Failure], "min_sparsity": []}
    ((case, _),) = JUnitXml.fromfile(str(tmp_path / "gate.xml"))
    assert case.classname == "gate.mine"
    assert case.result[0].message == "promised at most 1 points, measured 2.00 points"
    assert json.loads((tmp_path / "gate.json").read_text())["passed"] is False
    assert (tmp_path / "gate.md").read_text() == output


LIMITS = {"max_size_mib": 2, "max_compressed_size_mib": 0.6, "max_latency_ratio": 1.1}
LIMITED = dict(
    zip(("recovered.size_bytes", "recovered.compressed_size_bytes", "recovered.latency_ratio"), LIMITS, strict=True)
)


@pytest.mark.parametrize(
    ("change", "state", "exit_code", "verdict"),
    [
        ({}, "kept", 0, "Gate passed"),
        ({"recovered.size_bytes": 2**22}, "broken", 1, "Gate failed"),
        ({"recovered.compressed_size_bytes": 2**22}, "broken", 1, "Gate failed"),
        ({"recovered.latency_ratio": 1.2}, "broken", 1, "Gate failed"),
        ({"recovered.size_bytes": None}, "cannot tell", 4, "Gate: cannot tell"),
        ({"recovered.compressed_size_bytes": None}, "cannot tell", 4, "Gate: cannot tell"),
        ({"recovered.latency_ratio": None}, "cannot tell", 4, "Gate: cannot tell"),
    ],
)
def test_the_exit_code_junit_markdown_and_json_say_the_same(
    recipe: Path,
    metrics: Path,
    tmp_path: Path,
    change: dict[str, float | None],
    state: str,
    exit_code: int,
    verdict: str,
):
    metrics.write_text(json.dumps({name: value for name, value in {**METRICS, **change}.items() if value is not None}))
    limits = [word for name, limit in LIMITS.items() for word in ("--set", f"gate.{name}={limit}")]
    written = ("--junit", tmp_path / "gate.xml", "--markdown", tmp_path / "gate.md", "--json", tmp_path / "gate.json")

    code, _, error = gate(recipe, metrics, *limits, "--set", "evaluation.measure_latency=true", *written)

    assert code == exit_code, error
    names = ["max_top1_drop_points", "min_sparsity", *LIMITS]
    states = dict.fromkeys(names, "kept") | {LIMITED[key]: state for key in change}
    junit = {"kept": [], "broken": [Failure], "cannot tell": [Error]}
    assert read_junit(tmp_path / "gate.xml") == {name: junit[states[name]] for name in names}
    page = rendered((tmp_path / "gate.md").read_text())
    assert page.bold == [verdict]
    ((head, *rows),) = page.tables
    assert head == ["limit", "promised", "measured", ""]
    assert {row[0]: row[3] for row in rows} == states
    passed = {"kept": True, "broken": False, "cannot tell": None}
    read = json.loads((tmp_path / "gate.json").read_text())
    assert read["passed"] is passed[state]
    assert {check["name"]: check["passed"] for check in read["checks"]} == {
        name: passed[states[name]] for name in names
    }


TABLE = "| a | b | c | d |\n|---|---|---|---|\n| 1 | 2 | 3 | 4 |"


@pytest.mark.parametrize("before", ["", "a paragraph\n", TABLE, f"{TABLE}\n"])
def test_a_table_added_to_a_summary_stands_by_itself(recipe: Path, metrics: Path, tmp_path: Path, before: str):
    summary = tmp_path / "summary.md"
    summary.write_text(before)
    for _ in range(2):
        gate(recipe, metrics, "--markdown", summary)

    text = summary.read_text()
    assert text.startswith(before)
    page = rendered(text)
    assert page.bold == ["Gate passed"] * 2
    assert [len(table) for table in page.tables] == ([2] if "|" in before else []) + [3, 3]


def test_a_latency_limit_without_a_measured_latency_is_a_wrong_recipe(recipe: Path, metrics: Path, tmp_path: Path):
    code, output, error = gate(recipe, metrics, "--set", "gate.max_latency_ratio=1", "--junit", tmp_path / "gate.xml")
    assert (code, output) == (2, "")
    assert "error: --set, gate.max_latency_ratio: needs evaluation.measure_latency, which is off" in error
    assert "  now: set evaluation.measure_latency: true, or leave the limit out" in error
    assert not (tmp_path / "gate.xml").exists()


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


def test_a_run_that_failed_is_3_and_one_at_work_is_4(recipe: Path, tmp_path: Path):
    code, output = run_warm(recipe, "--output", tmp_path / "out", "--set", "gate.max_top1_drop_points=null")
    assert code == 1, output  # there is no such teacher

    with (tmp_path / "out" / LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        at_work, _, _ = gate(recipe, tmp_path / "out")
    code, _, error = gate(recipe, tmp_path / "out")

    assert (at_work, code) == (4, 3)
    assert "it failed, or was stopped" in error
    assert str(tmp_path / "out" / "log.txt") in error


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
    tmp_path: Path, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor]
):
    recipe = write_recipe(tmp_path, tiny_teacher, tiny_images)
    quick = ("--set", "synthesis.iterations=2", "--set", "recovery.epochs=1", "--set", "gate.min_sparsity=0.7")
    costs = ("--set", "evaluation.measure_latency=true", "--set", "gate.max_latency_ratio=100")
    costs += ("--set", "gate.max_size_mib=1", "--set", "gate.max_compressed_size_mib=1")

    exit_code, output = run_warm(recipe, "--output", tmp_path / "out", *quick, *costs)

    assert exit_code == 1
    assert "error: the result does not keep what its recipe promises: min_sparsity: at least 70 %" in output
    assert output.rstrip().endswith(f"kept: the result, which is in {tmp_path / 'out'}")
    assert (tmp_path / "out" / "model").is_dir()
    assert not (tmp_path / "out" / "publication.json").exists()
    assert gate(recipe, tmp_path / "out", *quick, *costs, "--set", "gate.min_sparsity=0.5")[0] == 0
    code, _, error = gate(recipe, tmp_path / "out")
    assert code == 4
    assert "holds the result of another recipe: synthesis.iterations is 2 there, 80 here" in error
    quick = (*quick, "--set", "evaluation.measure_latency=true")
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert measured["recovered.size_bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "out" / "model").iterdir()
    )
    mib = measured["recovered.size_bytes"] / 2**20
    quick = (*quick, "--set", "gate.min_sparsity=0.5")
    assert gate(recipe, tmp_path / "out", *quick, "--set", f"gate.max_size_mib={mib}")[0] == 0
    assert gate(recipe, tmp_path / "out", *quick, "--set", f"gate.max_size_mib={mib - 1e-6}")[0] == 1


def test_a_result_may_be_asked_to_be_that_of_one_model(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("teacher: {source: torchvision://resnet18}\ngate: {min_sparsity: 0.7}\n")
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "metrics.json").write_text(json.dumps(METRICS))
    digest = artifacts.save_artifact(tmp_path / "result" / "model", "recovered")

    assert gate(recipe, tmp_path / "result", "--sha256", digest)[0] == 0
    code, _, said = gate(recipe, tmp_path / "result", "--sha256", "0" * 64)
    assert (code, f"has digest {digest[:16]}…, not 0000" in said) == (4, True)
