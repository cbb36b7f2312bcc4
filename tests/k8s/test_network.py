"""Who reaches whom, by a model of what a network plugin makes of the policies: see `rendering.may`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import pytest

from tests.k8s.rendering import K8S, OURS, OVERLAYS, STAGE, Object, Place, load, may, named, of_kind, pods, selects
from tests.pipeline.compiled import Stage

DNS = {"k8s-app": "kube-dns"}
MINIO = {"app": "minio"}
SERVICES = {
    "ml-pipeline": {"app": "ml-pipeline"},
    "metadata-grpc-service": {"component": "metadata-grpc-server"},
    "mysql": {"app": "mysql"},
}
"""KFP's services by name -> the labels of their pods, from its manifests."""
PLACES = {
    "dns": Place(53, "kube-system", DNS, protocol="UDP"),
    "dns, long answers": Place(53, "kube-system", DNS),
    "dns, node's cache": Place(53, address="169.254.20.10", protocol="UDP"),
    "KFP: metadata": Place(8080, "kubeflow", {"component": "metadata-grpc-server"}),
    "KFP: API server, gRPC": Place(8887, "kubeflow", {"app": "ml-pipeline"}),
    "KFP: object store": Place(8333, "kubeflow", {"app": "seaweedfs"}),
    "Kubernetes: API server": Place(6443, address="192.0.2.1"),
    "MinIO": Place(9000, "minio", MINIO),
    "own store": Place(8333, "kubeflow", {OURS: "resprout-store"}),
    "KFP: API server, HTTP": Place(8888, "kubeflow", {"app": "ml-pipeline"}),
    "KFP: object store, filer": Place(8888, "kubeflow", {"app": "seaweedfs"}),
    "own store, filer": Place(8888, "kubeflow", {OURS: "resprout-store"}),
    "MinIO's console": Place(9001, "minio", MINIO),
    "a store of another namespace": Place(8333, "elsewhere", {OURS: "resprout-store", "app": "seaweedfs"}),
    "a pod that calls itself DNS": Place(53, "kubeflow", DNS, protocol="UDP"),
    "another stage": Place(8080, "kubeflow", {OURS: "resprout", STAGE: "prune"}),
    "the internet": Place(443, address="93.184.215.14"),
    "the internet, IPv6": Place(443, address="2606:2800:21f:cb07:6820:80da:af6b:8b2c"),
    "the internet, HTTP": Place(80, address="93.184.215.14"),
    "a cloud's metadata": Place(443, address="169.254.169.254"),
    "a private address": Place(443, address="10.1.2.3"),
    "a private address, IPv6": Place(443, address="fd00::1"),
}
EVERY_STAGE = {name for name in PLACES if name.startswith("dns")} | {
    "KFP: metadata",
    "KFP: API server, gRPC",
    "KFP: object store",
    "Kubernetes: API server",
}
OWN_STORE = {"standalone": set(), "multi-user": set(), "byo-minio": {"MinIO"}, "dev": {"own store"}}
INTERNET = {"the internet", "the internet, IPv6"}
FETCHING = {"plan", "fetch-teacher", "fetch-test-set", "collect-images"}


def reached(objects: list[Object], overlay: str, labels: dict[str, str]) -> set[str]:
    return {name for name, place in PLACES.items() if may(objects, OVERLAYS[overlay], labels, "Egress", place)}


def labels_of(stage: Stage) -> dict[str, str]:
    return dict(stage.kubernetes["podMetadata"]["labels"])


def test_stages_reach_the_object_store_and_what_kfp_cannot_live_without(
    overlay: str, objects: list[Object], stages: list[Stage]
):
    for stage in stages:
        expected = EVERY_STAGE | OWN_STORE[overlay] | (INTERNET if stage.component in FETCHING else set())
        assert reached(objects, overlay, labels_of(stage)) == expected, stage.component


def test_no_stage_with_a_gpu_leaves_the_cluster(overlay: str, objects: list[Object], stages: list[Stage]):
    outside = {name for name, place in PLACES.items() if place.address} - {"dns, node's cache"}
    with_gpu = [stage for stage in stages if "accelerator" in stage.container["resources"]]
    assert with_gpu
    for stage in with_gpu:
        assert reached(objects, overlay, labels_of(stage)) & outside == {"Kubernetes: API server"}


def test_the_check_tries_what_stages_need_and_what_no_policy_lets_them_reach(overlay: str, objects: list[Object]):
    (check,) = pods(load(K8S / "examples"))
    places = {it["name"]: [place.split("/") for place in it["value"].split()] for it in check.containers[0]["env"]}

    def reached(host: str, port: str, labels: Mapping[str, str]) -> bool:
        service, _, namespace = host.partition(".")
        inside = Place(int(port), namespace, SERVICES.get(service, {}))
        place = Place(int(port), address=host) if host.replace(".", "").isdigit() else inside
        return may(objects, OVERLAYS[overlay], labels, "Egress", place)

    assert all(reached(host, port, check.labels) for host, port in places["NEEDED"])
    assert not any(reached(host, port, check.labels) for host, port in places["FORBIDDEN"])
    assert all(reached(host, port, {}) for host, port in places["FORBIDDEN"]), "where no policy holds, it gets there"
    assert any(ipaddress.ip_address(host).is_global for host, _ in places["FORBIDDEN"] if host[0].isdigit())


def test_nobody_reaches_a_stage(overlay: str, objects: list[Object], stages: list[Stage]):
    callers = [Place(port, OVERLAYS[overlay], {OURS: "resprout", STAGE: "prune"}) for port in (80, 8080, 8333)]
    for stage in stages:
        assert not any(may(objects, OVERLAYS[overlay], labels_of(stage), "Ingress", caller) for caller in callers)


def test_a_new_stage_reaches_what_every_stage_does(overlay: str, objects: list[Object]):
    assert reached(objects, overlay, {OURS: "resprout", STAGE: "export"}) == EVERY_STAGE | OWN_STORE[overlay]


def test_the_set_up_job_reaches_stores_and_names_alone(overlay: str, objects: list[Object]):
    (job,) = (pod for pod in pods(objects) if pod.name == "resprout-storage-setup")
    stores = {"KFP: object store"} | OWN_STORE[overlay]
    assert reached(objects, overlay, dict(job.labels)) == {name for name in PLACES if name.startswith("dns")} | stores


@pytest.mark.parametrize("labels", [{"app": "ml-pipeline"}, {"pipelines.kubeflow.org/v2_component": "true"}, {}])
def test_pods_of_others_are_left_alone(overlay: str, objects: list[Object], labels: dict[str, str]):
    assert not any(selects(it["spec"]["podSelector"], labels) for it in of_kind(objects, "NetworkPolicy"))
    assert reached(objects, overlay, labels) == set(PLACES)


def test_of_the_store_only_s3_is_reached_and_by_our_pods_alone(rendered: dict[str, list[Object]]):
    objects = rendered["dev"]
    (store,) = (pod for pod in pods(objects) if pod.name == "resprout-store")
    labels = dict(store.labels)

    def enters(port: int, namespace: str, who: dict[str, str]) -> bool:
        return may(objects, "kubeflow", labels, "Ingress", Place(port, namespace, who))

    assert reached(objects, "dev", labels) == set()
    assert enters(8333, "kubeflow", {OURS: "resprout", STAGE: "recover"})
    assert not enters(8333, "kubeflow", {"app": "ml-pipeline"})
    assert not enters(8333, "elsewhere", {OURS: "resprout", STAGE: "recover"})
    for unguarded in (9333, 19333, 9340, 8888, 18888, 23646, 33646):
        assert not enters(unguarded, "kubeflow", {OURS: "resprout", STAGE: "recover"})


def test_who_fetches_is_a_stage_of_the_pipeline(objects: list[Object], stages: list[Stage]):
    (asked,) = named(objects, "NetworkPolicy", "resprout-fetch")["spec"]["podSelector"]["matchExpressions"]
    assert (asked["key"], asked["operator"], set(asked["values"])) == (STAGE, "In", FETCHING)
    assert {stage.component for stage in stages} >= FETCHING


def test_ciliums_policy_is_for_the_stages_alone(stages: list[Stage], rendered: dict[str, list[Object]]):
    (policy,) = of_kind(load(K8S / "examples"), "CiliumNetworkPolicy")
    selector = policy["spec"]["endpointSelector"]
    assert all(selects(selector, labels_of(stage)) for stage in stages)
    assert not any(selects(selector, pod.labels) for pod in pods(rendered["dev"]))
