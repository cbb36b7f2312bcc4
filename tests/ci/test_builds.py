"""The GitHub action and the GitLab template, run: what a build submits, shows, and ends with."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from junitparser import JUnitXml

from pipeline.embedded_storage import Server
from resprout import outcome
from resprout.storage import ObjectAddress, Storage
from tests.ci.conftest import TOKEN
from tests.ci.steps import ACTION, GITLAB, ROOT, action_step, gitlab_script, shell
from tests.pipeline.cluster.argo import pod_of
from tests.pipeline.cluster.fake_kfp import FakeKfp, Scene

RECIPE = "my recipe; exit 7.yaml"
EXAMPLES = ROOT / "examples" / "ci"


def compress(build: Path, environment: dict[str, str], **inputs: str) -> tuple[int, str, dict[str, str], str]:
    """The action's second step: exit code, what it said, its outputs and its summary."""
    files = {"GITHUB_OUTPUT": build / "output", "GITHUB_STEP_SUMMARY": build / "summary.md"}
    given = {"recipe": RECIPE, **{name.replace("_", "-"): value for name, value in inputs.items()}}
    script, variables = action_step("Compress", given, {**environment, **{name: str(it) for name, it in files.items()}})
    code, said = shell(script, variables, build)
    assert TOKEN not in said
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    return code, said, outputs, files["GITHUB_STEP_SUMMARY"].read_text()


def test_an_action_submits_waits_judges_and_reports(
    kfp: FakeKfp, build: Path, environment: dict[str, str], result: str, server: Server
) -> None:
    data = ObjectAddress("resprout", f"ci/{build.parent.name}/$(touch pwned)")
    Storage(server.settings).upload(build / RECIPE, data)  # something must lie there; nobody reads it
    overrides = f"\n  pruning.sparsity=0.8  \n\nevaluation.data={data}\n"
    code, said, outputs, summary = compress(
        build, environment, overrides=overrides, result=result, name="build 7 `touch pwned`", experiment="nightly"
    )

    assert code == 0, said
    (run,) = kfp.runs.values()
    assert run.display_name == "build 7 `touch pwned`"
    given = run.runtime_config.parameters
    assert (given["sparsity"], given["test_set"]) == ("0.8", str(data))
    assert not (build / "pwned").exists()
    assert outputs == {
        "run-id": run.run_id,
        "link": f"{kfp.url}/#/runs/details/{run.run_id}",
        "state": "SUCCEEDED",
        "exit-code": "0",
    }
    assert json.loads((build / "resprout-ci" / "gate.json").read_text())["passed"] is True
    assert "the result is as agreed" in summary
    assert outputs["link"] in summary
    assert "| `min_sparsity` | at least 70 % | 75.00 % | kept |" in summary


def test_a_published_result_that_is_worse_than_agreed_fails_the_build(
    build: Path, environment: dict[str, str], result: str
) -> None:
    code, said, outputs, summary = compress(build, environment, overrides="gate.min_agreement=0.95", result=result)

    assert (code, outputs["exit-code"]) == (1, "1"), said
    assert "**broken**" in summary
    assert JUnitXml.fromfile(str(build / "resprout-ci" / "gate.xml")).failures == 1


@pytest.mark.parametrize(("model", "expected"), [("{}", 0), ("another", 4)])
def test_a_published_result_is_that_of_the_run_or_it_cannot_be_told(
    kfp: FakeKfp, build: Path, environment: dict[str, str], result: str, model: str, expected: int
) -> None:
    kfp.plays(Scene("SUCCEEDED", {"recover": "SUCCEEDED", "publish": "SUCCEEDED"}))
    digest = hashlib.sha256(model.encode()).hexdigest()
    kfp.logs[pod_of("publish")] = outcome.told("publish", {"address": result, "digest": digest})
    code, said, _, _ = compress(build, environment, result=result)

    assert code == expected, said
    assert (f"not {digest}" in said) is bool(expected)


def test_a_gate_that_fails_on_the_cluster_fails_the_build(
    kfp: FakeKfp, build: Path, environment: dict[str, str], result: str
) -> None:
    kfp.plays(Scene("FAILED", {"fetch-teacher": "SUCCEEDED", "gate": "FAILED"}))
    kfp.logs[pod_of("gate")] = "| `min_sparsity` | at least 70 % | 50.00 % | **broken** |"
    code, said, outputs, summary = compress(build, environment, result=result)

    assert (code, outputs["state"]) == (1, "FAILED")
    assert "50.00 %" in said
    assert "breaks a limit" in summary
    assert "50.00 %" in summary
    stages = {it.name: it for suite in JUnitXml.fromfile(str(build / "resprout-ci" / "run.xml")) for it in suite}
    assert "50.00 %" in stages["gate"].result[0].text
    assert not (build / "resprout-ci" / "gate.xml").exists()  # there is nothing of this build's to judge


@pytest.mark.parametrize(
    ("scene", "inputs", "expected", "word"),
    [
        (Scene("FAILED", {"recover": "FAILED"}), {}, 3, "failed"),
        (Scene("SUCCEEDED"), {"overrides": "pruning.sparsty=0.8"}, 2, "nothing was submitted"),
        (Scene("SUCCEEDED"), {"result": "s3://resprout/ci/nothing/there/1"}, 4, "cannot be told"),
        (Scene("RUNNING", {"recover": "RUNNING"}), {"timeout": "0s"}, 4, "cannot be told"),
    ],
)
def test_each_end_has_its_code(
    kfp: FakeKfp,
    build: Path,
    environment: dict[str, str],
    scene: Scene,
    inputs: dict[str, str],
    expected: int,
    word: str,
) -> None:
    kfp.plays(scene)
    code, said, outputs, summary = compress(build, environment, **inputs)

    assert (code, outputs["exit-code"]) == (expected, str(expected)), said
    assert word in summary


def test_an_input_goes_before_the_environment(kfp: FakeKfp, build: Path, environment: dict[str, str]) -> None:
    elsewhere = {**environment, "RESPROUT_KFP_HOST": "http://127.0.0.1:9"}
    code, said, outputs, _ = compress(build, elsewhere, host=kfp.url, ui="https://kubeflow.example.org")

    assert code == 0, said
    assert outputs["link"].startswith("https://kubeflow.example.org/#/runs/details/")


def test_a_refused_token_is_told_without_being_shown(build: Path, environment: dict[str, str]) -> None:
    wrong = "another-token-that-nobody-may-see"
    code, said, _, _ = compress(build, {**environment, "RESPROUT_KFP_TOKEN": wrong})

    assert code == 4
    assert wrong not in said


def test_a_gitlab_job_does_the_same(kfp: FakeKfp, build: Path, environment: dict[str, str], result: str) -> None:
    script, variables = gitlab_script(
        {"RESPROUT_RECIPE": RECIPE, "RESPROUT_SET": "publishing.version=4711", "RESPROUT_RESULT": result}, environment
    )
    code, said = shell(script, variables, build)

    assert code == 0, said
    (run,) = kfp.runs.values()
    assert run.runtime_config.parameters["recipe"]["publishing"]["version"] == "4711"  # what $CI_PIPELINE_ID looks like
    pattern = GITLAB["artifacts"]["reports"]["junit"].replace("$RESPROUT_OUT", GITLAB["variables"]["RESPROUT_OUT"])
    reports = {path.name: JUnitXml.fromfile(str(path)) for path in build.glob(pattern)}
    assert reports.keys() == {"run.xml", "gate.xml"}
    assert reports["gate.xml"].tests == 1


def test_no_value_becomes_a_part_of_a_shells_text() -> None:
    steps = [step["run"] for step in ACTION["runs"]["steps"]]
    workflow = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text())
    steps += [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert not any("${{" in step for step in steps)


def test_the_example_workflow_uses_the_action_as_it_is() -> None:
    workflow = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text())
    (step,) = [step for step in workflow["jobs"]["compress"]["steps"] if step.get("id") == "compress"]
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert {name for name, it in ACTION["inputs"].items() if it.get("required")} <= set(step["with"])
    outputs = {re.search(r"outputs\.([\w-]+)", it["value"])[1] for it in ACTION["outputs"].values()}  # type: ignore[index]
    assert outputs == set(ACTION["outputs"])


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-actions", ROOT / "action.yml"),
        ("vendor.github-workflows", EXAMPLES / "github-workflow.yml"),
        ("vendor.gitlab-ci", EXAMPLES / "gitlab.yml"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_yaml_is_what_its_ci_system_reads(schema: str, path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, "--no-cache", str(path)]
    if schema == "vendor.gitlab-ci":
        command[-1:-1] = ["--data-transform", "gitlab-ci"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_what_is_installed_submits(kfp: FakeKfp, build: Path, environment: dict[str, str], tmp_path: Path) -> None:
    bare = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    bare |= {"RUNNER_TEMP": str(tmp_path), "GITHUB_PATH": str(tmp_path / "path")}
    script, variables = action_step("Install Resprout", {"recipe": RECIPE, "python": sys.executable}, bare)
    code, said = shell(script, variables, build)
    assert code == 0, said

    installed = (tmp_path / "path").read_text().strip()
    script, variables = action_step("Compress", {"recipe": RECIPE}, {**bare, "PATH": f"{installed}:/usr/bin:/bin"})
    code, said = shell(script, variables, build)
    assert code == 0, said
    assert len(kfp.runs) == 1


def test_what_a_run_says_is_no_command_to_github(build: Path, environment: dict[str, str]) -> None:
    asked = {**environment, "GITHUB_ACTIONS": "true", "RESPROUT_RECIPE": "::error::there is none.yaml"}
    code, said = shell(str(ROOT / "ci" / "compress.sh"), asked, build)

    first, *between, last = said.splitlines()
    token = first.removeprefix("::stop-commands::")
    assert code == 2
    assert re.fullmatch("[0-9a-f]{32}", token)
    assert last == f"::{token}::"
    assert between
    assert token not in "".join(between)
    again = shell(str(ROOT / "ci" / "compress.sh"), asked, build)[1]
    assert token not in again, "nobody can know the next one"
