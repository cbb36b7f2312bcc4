"""What `resprout submit` and `resprout runs` ask of a KFP that serves several teams, the role of builds allows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.k8s.rendering import Object, named
from tests.pipeline.cluster.conftest import command_line
from tests.pipeline.cluster.fake_kfp import Scene, serving

# what KFP's API server asks Kubernetes for, of the namespace that a request names (its server package, canAccess…)
RIGHTS = (
    ("GET", "/apis/v2beta1/pipelines/names/.+", "pipelines", "get"),
    ("POST", "/apis/v2beta1/pipelines", "pipelines", "create"),
    ("POST", "/apis/v2beta1/pipelines/upload_version", "pipelines/versions", "create"),
    ("GET", "/apis/v2beta1/pipelines/[^/]+/versions", "pipelines/versions", "list"),
    ("GET", "/apis/v2beta1/experiments", "experiments", "list"),
    ("POST", "/apis/v2beta1/experiments", "experiments", "create"),
    ("POST", "/apis/v2beta1/runs", "runs", "create"),
    ("GET", "/apis/v2beta1/runs", "runs", "list"),
    ("GET", "/apis/v2beta1/runs/[^/:]+", "runs", "get"),
    ("GET", "/apis/v1beta1/runs/[^/:]+", "runs", "get"),
    ("POST", "/apis/v2beta1/runs/[^/:]+:terminate", "runs", "terminate"),
    ("POST", "/apis/v2beta1/runs/[^/:]+:retry", "runs", "retry"),
)
FOR_ANYBODY = "/apis/v2beta1/healthz"


def test_every_right_that_the_commands_use_and_no_other_is_given(
    rendered: dict[str, list[Object]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"teacher": {"source": "torchvision://resnet18"}}))
    monkeypatch.setenv("RESPROUT_KFP_NAMESPACE", "team-vision")
    with serving(multi_user=True) as kfp:
        resprout = command_line(kfp, monkeypatch)
        kfp.plays(Scene("RUNNING"))
        assert resprout("submit", recipe).exit_code == 0
        (run_id,) = kfp.runs
        for words in (("ls",), ("show", run_id), ("stop", run_id), ("show", run_id, "--wait"), ("retry", run_id)):
            assert resprout("runs", *words).exit_code in (0, 3), words
        used = {right_of(method, path) for method, path in kfp.asked if path != FOR_ANYBODY}

    rules = named(rendered["multi-user"], "Role", "resprout-submitter")["rules"]
    given = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert used <= given
    # beside these, what KFP looks at on the way: the experiment of a run, the pipeline of a version
    assert given - used == {("pipelines", "list"), ("experiments", "get")}


def right_of(method: str, path: str) -> tuple[str, str]:
    (right,) = [(it[2], it[3]) for it in RIGHTS if it[0] == method and re.fullmatch(it[1], path)]
    return right
