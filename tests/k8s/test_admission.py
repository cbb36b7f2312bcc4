"""Which secrets a pod of a run may name: the admission policy's own expressions, evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from resprout.recipe import PlacementSection
from tests.k8s.rendering import K8S, OURS, Object, load, named, pods
from tests.pipeline.compiled import Stage

cel = pytest.importorskip("cel", reason="needs common-expression-language, for Python 3.11 and newer")

POLICY = named(load(K8S), "ValidatingAdmissionPolicy", "resprout-secrets")["spec"]
BINDING = named(load(K8S), "ValidatingAdmissionPolicyBinding", "resprout-secrets")["spec"]
ADMIN, STORAGE = "resprout-storage-admin", "resprout-storage"


def refusals(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the policy has against a pod, as the API server would find it."""
    known: dict[str, Any] = {}

    def value(expression: str) -> Any:
        return cel.evaluate(expression, {"object": pod, "variables": known})

    if not all(value(it["expression"]) for it in POLICY["matchConditions"]):
        return []
    for variable in POLICY["variables"]:
        known[variable["name"]] = value(variable["expression"])
    return [it for it in POLICY["validations"] if not value(it["expression"])]


def of_a_run(*, account: str = "resprout-runner", labels: bool = True, **spec: Any) -> dict[str, Any]:
    """A stage's pod; `container` is what its container has more."""
    container = {"name": "main", "image": "resprout/cpu:1", **spec.pop("container", {})}
    metadata = {"labels": {OURS: "resprout"}} if labels else {}
    return {"metadata": metadata, "spec": {"serviceAccountName": account, "containers": [container], **spec}}


def mounted(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "it", **source}]}


def from_secret(name: str) -> dict[str, Any]:
    return {"env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": name}}}]}


def all_of_secret(name: str) -> dict[str, Any]:
    return {"envFrom": [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": name}}]}


def ways(name: str) -> dict[str, dict[str, Any]]:
    """Every way in which a pod can name a secret."""
    token = {"serviceAccountToken": {"path": "token"}}
    return {
        "a volume": mounted(secret={"secretName": name}),
        "a projected volume": mounted(projected={"sources": [token, {"secret": {"name": name}}]}),
        "a variable": {"container": from_secret(name)},
        "all variables": {"container": all_of_secret(name)},
        "a variable of an init container": {"initContainers": [{"name": "init", **from_secret(name)}]},
        "all variables of an init container": {"initContainers": [{"name": "init", **all_of_secret(name)}]},
        "a variable of an ephemeral container": {"ephemeralContainers": [{"name": "debug", **from_secret(name)}]},
        "all variables of an ephemeral container": {"ephemeralContainers": [{"name": "debug", **all_of_secret(name)}]},
    }


@pytest.mark.parametrize("way", ways(""))
def test_a_run_names_the_secrets_that_are_listed_and_no_other(way: str):
    assert not refusals(of_a_run(**ways(STORAGE)[way]))
    assert refusals(of_a_run(**ways(ADMIN)[way]))
    assert refusals(of_a_run(account="pipeline-runner", **ways(ADMIN)[way])), "whatever service account it is given"
    assert refusals(of_a_run(labels=False, **ways(ADMIN)[way])), "whatever labels it has"


@pytest.mark.parametrize(
    "volume",
    [
        {"csi": {"driver": "secrets-store.csi.k8s.io", "volumeAttributes": {"secretProviderClass": "all"}}},
        {"csi": {"driver": "some", "nodePublishSecretRef": {"name": STORAGE}}},
        {"azureFile": {"secretName": STORAGE, "shareName": "share"}},
        {"flexVolume": {"driver": "a/b", "secretRef": {"name": STORAGE}}},
        {"hostPath": {"path": "/var/lib/kubelet"}},
    ],
    ids=lambda volume: next(iter(volume)),
)
def test_no_kind_of_volume_leads_to_secrets_by_a_way_of_its_own(volume: dict[str, Any]):
    assert refusals(of_a_run(**mounted(**volume)))


def test_images_are_pulled_with_the_registrys_secret_alone():
    assert not refusals(of_a_run(imagePullSecrets=[{"name": "resprout-registry"}]))
    assert refusals(of_a_run(imagePullSecrets=[{"name": "resprout-registry"}, {"name": ADMIN}]))


def test_the_set_up_has_the_administrators_secret_and_no_stages():
    assert not refusals(of_a_run(account="resprout-storage-setup", **mounted(secret={"secretName": ADMIN})))
    assert refusals(of_a_run(account="resprout-storage-setup", **mounted(secret={"secretName": STORAGE})))


def test_other_pods_are_none_of_its_business():
    assert not refusals(of_a_run(account="default", labels=False, **mounted(secret={"secretName": ADMIN})))


def test_every_pod_of_ours_passes(objects: list[Object]):
    for pod in [*pods(objects), *pods(load(K8S / "examples"))]:
        found = {"metadata": {"labels": pod.labels}, "spec": {"serviceAccountName": "default", **pod.spec}}
        assert not refusals(found), pod.name


def test_every_secret_that_the_pipeline_names_by_itself_is_listed(stages: list[Stage]):
    for stage in stages:
        for secret in stage.kubernetes.get("secretAsVolume", ()):
            assert not refusals(of_a_run(**mounted(secret={"secretName": secret["secretName"]})))
    ours = [value for name, value in PlacementSection() if name.endswith("_secret")]
    assert ours
    for name in ours:
        assert not refusals(of_a_run(**mounted(secret={"secretName": name})))


def test_it_is_enforced_when_pods_are_made_and_when_containers_are_added():
    assert BINDING == {"policyName": "resprout-secrets", "validationActions": ["Deny"]}
    assert POLICY["failurePolicy"] == "Fail"
    rules = POLICY["matchConstraints"]["resourceRules"]
    asked = {(operation, it) for rule in rules for operation in rule["operations"] for it in rule["resources"]}
    assert asked == {("CREATE", "pods"), ("UPDATE", "pods/ephemeralcontainers")}


def test_every_refusal_says_what_is_wrong():
    for validation in POLICY["validations"]:
        assert "a pod of Resprout" in validation.get("message", "") + validation.get("messageExpression", "")
