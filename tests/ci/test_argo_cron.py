"""examples/ci/argo-cron.yaml: what its pods may do, and what they submit, run as Kubernetes would run it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from docker import DockerClient
from docker.errors import ImageNotFound

from resprout import __version__
from tests.ci.conftest import TOKEN
from tests.ci.steps import ROOT, pod, with_command
from tests.pipeline.cluster.fake_kfp import serving

DOCUMENTS = list(yaml.safe_load_all((ROOT / "examples" / "ci" / "argo-cron.yaml").read_text()))
MAKE_PODS = {it["kind"]: it for it in DOCUMENTS if it["kind"] in ("CronJob", "Sensor")}
EVENT = {"notification": [{"s3": {"bucket": {"name": "models"}, "object": {"key": "teachers/$(id) new.safetensors"}}}]}


def find(path: str, within: Any) -> Any:
    for name in path.split("."):
        within = within[int(name)] if name.isdigit() else within[name]
    return within


def put(path: str, within: Any, value: Any) -> None:
    parent, _, name = path.rpartition(".")
    find(parent, within)[name] = value


def as_run(container: Any) -> list[str]:
    """Its arguments, with $(NAME) as Kubernetes puts variables in: once, what comes out is not looked at again."""
    values = {it["name"]: it["value"] for it in container["env"]}
    return [re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], argument) for argument in container["args"]]


def happened() -> Any:
    """The Sensor's pod after an event, as Argo Events fills it in."""
    trigger = yaml.safe_load(yaml.safe_dump(MAKE_PODS["Sensor"]))["spec"]["triggers"][0]["template"]["k8s"]
    for parameter in trigger["parameters"]:
        put(parameter["dest"], trigger["source"]["resource"], find(parameter["src"]["dataKey"], EVENT))
    return trigger["source"]["resource"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("kind", MAKE_PODS)
def test_its_pods_meet_the_restricted_standard_and_hold_one_token(kind: str) -> None:
    spec = pod(MAKE_PODS[kind])
    assert spec["serviceAccountName"] == "resprout-submitter"
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["image"] == f"resprout/submit:{__version__}"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    tokens = [it["projected"]["sources"][0]["serviceAccountToken"] for it in spec["volumes"] if "projected" in it]
    assert [token["audience"] for token in tokens] == ["pipelines.kubeflow.org"]
    assert not any("command" in it or "sh" in it["args"] for it in spec["containers"])


@pytest.mark.parametrize("version", ["1.29", "1.34"])
def test_kubernetes_knows_every_field(version: str) -> None:
    trigger = MAKE_PODS["Sensor"]["spec"]["triggers"][0]["template"]["k8s"]
    for document in [*(it for it in DOCUMENTS if "argoproj" not in it["apiVersion"]), trigger["source"]["resource"]]:
        kubernetes_validate.validate(document, version, strict=True)


def test_names_that_refer_to_each_other_agree() -> None:
    installed = yaml.safe_load((ROOT / "k8s" / "base" / "submitter.yaml").read_text())
    names = {(it["kind"], it["metadata"]["name"]) for it in [*DOCUMENTS, installed]}
    for kind in MAKE_PODS:
        spec = pod(MAKE_PODS[kind])
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        (config,) = [it["configMap"]["name"] for it in spec["volumes"] if "configMap" in it]
        assert ("ConfigMap", config) in names
    sensor = MAKE_PODS["Sensor"]["spec"]
    assert ("ServiceAccount", sensor["template"]["serviceAccountName"]) in names
    (dependency,) = sensor["dependencies"]
    (source,) = [it for it in DOCUMENTS if it["kind"] == "EventSource"]
    assert dependency["eventSourceName"] == source["metadata"]["name"]
    assert dependency["eventName"] in source["spec"]["minio"]


@pytest.mark.parametrize("kind", MAKE_PODS)
def test_what_a_pod_runs_submits_its_recipe(kind: str, tmp_path: Path) -> None:
    spec = happened() if kind == "Sensor" else pod(MAKE_PODS[kind])
    (container,) = spec["containers"]
    (recipe,) = [it["data"] for it in DOCUMENTS if it["kind"] == "ConfigMap"]
    (tmp_path / "lesions.yaml").write_text(recipe["lesions.yaml"])
    (tmp_path / "token").write_text(TOKEN)
    with serving(token=TOKEN, multi_user=True) as kfp:
        environment = {
            **with_command(tmp_path / "bin"),
            **{it["name"]: it["value"] for it in container["env"]},
            # where a pod finds these by itself
            "RESPROUT_KFP_HOST": kfp.url,
            "RESPROUT_KFP_TOKEN_FILE": str(tmp_path / "token"),
        }
        words = [word.replace("/recipes/", f"{tmp_path}/") for word in as_run(container)]
        ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    (run,) = kfp.runs.values()
    (experiment,) = kfp.experiments.values()
    assert experiment.namespace == "team-vision"
    given = run.runtime_config.parameters
    arrived = "s3://models/teachers/$(id) new.safetensors"
    assert given["teacher"] == (arrived if kind == "Sensor" else "s3://models/teachers/lesions.safetensors")
    assert given["publish_to"] == yaml.safe_load(recipe["lesions.yaml"])["publishing"]["to"]
    assert run.service_account == "resprout-runner"


@pytest.mark.docker
def test_the_image_has_all_that_submitting_needs(engine: DockerClient, tmp_path: Path) -> None:
    name = pod(MAKE_PODS["CronJob"])["containers"][0]["image"]
    try:
        image = engine.images.get(name)
    except ImageNotFound:
        pytest.skip(f"there is no image {name}: make image-submit builds it")
    assert image.attrs["Config"]["User"] == "65532:65532"
    recipe = tmp_path / "lesions.yaml"
    recipe.write_text(next(it["data"]["lesions.yaml"] for it in DOCUMENTS if it["kind"] == "ConfigMap"))
    with serving() as kfp:
        engine.containers.run(
            image.id,
            ["resprout", "submit", "/recipes/lesions.yaml", "--plain"],
            environment={"RESPROUT_KFP_HOST": kfp.url},
            network_mode="host",
            read_only=True,
            remove=True,
            tmpfs={"/tmp": "mode=1777"},
            volumes=[f"{recipe}:/recipes/lesions.yaml:ro"],
        )
    assert len(kfp.runs) == 1
