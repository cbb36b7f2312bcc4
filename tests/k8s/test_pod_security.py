"""Pod Security `restricted`: what the overlays' pods and the pipeline's ask of a node."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.k8s.rendering import K8S, ROOT, Object, Pod, load, pods
from tests.pipeline.compiled import Stage

HARDENED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(spec: Mapping[str, Any]) -> Iterator[str]:
    """What https://kubernetes.io/docs/concepts/security/pod-security-standards/ (restricted) has against a pod."""
    whole = spec.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    yield from (f"volume {it['name']}" for it in spec.get("volumes", ()) if not set(it) - {"name"} <= VOLUMES)
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        own = container.get("securityContext", {})
        where, capabilities = container["name"], own.get("capabilities", {})
        if own.get("privileged"):
            yield f"{where}: privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{where}: allowPrivilegeEscalation"
        if not own.get("runAsNonRoot", whole.get("runAsNonRoot")):
            yield f"{where}: runAsNonRoot"
        if own.get("runAsUser", whole.get("runAsUser")) == 0:
            yield f"{where}: runAsUser"
        profile = own.get("seccompProfile", whole.get("seccompProfile", {})).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield f"{where}: seccompProfile"
        if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield f"{where}: capabilities"
        if any(port.get("hostPort") for port in container.get("ports", ())):
            yield f"{where}: hostPort"


def as_kfp_runs_it(stage: Stage) -> Pod:
    """The pod that KFP 2.17 and its Argo make of a stage.

    From their source: argocompiler's security_context.go gives the stage's container all of restricted but
    runAsNonRoot, which the platform spec adds, and the launcher's init container that too; Argo's own containers
    have what KFP's workflow-controller-configmap says; container.go adds empty folders, the driver what the platform
    spec mounts.
    """
    config = stage.kubernetes
    own = {name: int(value) if name != "runAsNonRoot" else value for name, value in config["securityContext"].items()}
    argo = {**HARDENED, "runAsNonRoot": True, "runAsUser": 65532}
    volumes: list[dict[str, Any]] = [{"name": "kfp-launcher", "emptyDir": {}}]
    volumes += [
        {"name": it["volumeName"], "emptyDir": {"medium": it["medium"]}} for it in config.get("emptyDirMounts", ())
    ]
    volumes += [{"name": "secret", "secret": {"optional": it["optional"]}} for it in config.get("secretAsVolume", ())]
    spec = {
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [
            {"name": "init", "securityContext": argo},
            {"name": "kfp-launcher", "securityContext": {**HARDENED, "runAsNonRoot": True}},
        ],
        "containers": [
            {"name": "main", "securityContext": {**HARDENED, **own}},
            {"name": "wait", "securityContext": argo},
        ],
        "volumes": volumes,
    }
    return Pod(stage.component, config["podMetadata"]["labels"], spec)


def test_the_pods_of_a_run_are_restricted(stages: list[Stage]):
    for stage in stages:
        assert not list(violations(as_kfp_runs_it(stage).spec)), stage.component


def test_without_what_the_pipeline_asks_for_they_would_not_be(stages: list[Stage]):
    pod = as_kfp_runs_it(stages[0]).spec
    for name in ("runAsNonRoot", "runAsUser", "runAsGroup"):
        del pod["containers"][0]["securityContext"][name]
    assert list(violations(pod)) == ["main: runAsNonRoot"]


def test_the_pods_of_an_overlay_are_restricted(objects: list[Object]):
    for pod in [*pods(objects), *pods(load(K8S / "examples"))]:
        assert not list(violations(pod.spec)), pod.name


def test_they_write_to_volumes_alone_and_hold_no_token(objects: list[Object]):
    for pod in [*pods(objects), *pods(load(K8S / "examples"))]:
        assert pod.spec["automountServiceAccountToken"] is False
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in pod.containers)


def test_they_run_as_the_user_of_the_image(objects: list[Object], stages: list[Stage]):
    (user,) = set(re.findall(r"^USER (\S+)$", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE))
    for stage in stages:
        asked = stage.kubernetes["securityContext"]
        assert f"{asked['runAsUser']}:{asked['runAsGroup']}" == user
    for pod in pods(objects):
        asked = pod.spec["securityContext"]
        assert f"{asked['runAsUser']}:{asked['runAsGroup']}" == user


def test_every_long_running_container_is_watched(objects: list[Object]):
    serving = [it for pod in pods(objects) for it in pod.spec["containers"] if it.get("ports")]
    for container in serving:
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        *folders, last = path.split(".")
        part: Any = spec
        for name in folders:
            part = part[int(name)] if name.isdigit() else part[name]
        part[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        (_set("hostNetwork", True), "hostNetwork"),
        (_set("volumes", [{"name": "host", "hostPath": {"path": "/"}}]), "volume host"),
        (_set("containers.0.securityContext.privileged", True), "main: privileged"),
        (_set("containers.0.securityContext.runAsUser", 0), "main: runAsUser"),
        (_set("containers.0.securityContext.allowPrivilegeEscalation", True), "main: allowPrivilegeEscalation"),
        (
            _set("containers.0.securityContext.capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            "main: capabilities",
        ),
        (_set("containers.0.securityContext.seccompProfile", {"type": "Unconfined"}), "main: seccompProfile"),
        (_set("initContainers.0.securityContext", {}), "init: allowPrivilegeEscalation"),
        (_set("containers.0.ports", [{"hostPort": 80}]), "main: hostPort"),
    ],
)
def test_what_is_not_restricted_is_found(stages: list[Stage], change: Callable[[Any], None], violation: str):
    spec = copy.deepcopy(dict(as_kfp_runs_it(stages[0]).spec))
    change(spec)
    assert violation in list(violations(spec))
