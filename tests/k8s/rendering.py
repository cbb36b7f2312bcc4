"""The overlays as kubectl renders them, and small models of what Kubernetes makes of selectors and network policies."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = {"standalone": "kubeflow", "multi-user": "team-vision", "byo-minio": "kubeflow", "dev": "kubeflow"}
"""Each overlay -> the namespace that it is for."""
VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36")
OURS = "app.kubernetes.io/part-of"
STAGE = "app.kubernetes.io/component"

Object = Mapping[str, Any]


def render(overlay: Path) -> list[Object]:
    """What `kubectl apply -k` would send."""
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "a deprecated field, for one"
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def load(folder: Path) -> list[Object]:
    """The objects in a folder's own files."""
    return [found for file in sorted(folder.glob("*.yaml")) for found in yaml.safe_load_all(file.read_text()) if found]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [found for found in objects if found["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (it for it in of_kind(objects, kind) if it["metadata"]["name"] == name)
    return found


@dataclass(frozen=True)
class Pod:
    """A pod's labels and specification, and the name of what makes it."""

    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def pods(objects: list[Object]) -> list[Pod]:
    """Every pod that an object of the overlay makes."""
    made = of_kind(objects, "Deployment", "StatefulSet", "DaemonSet", "Job")
    templates = [(it["metadata"]["name"], it["spec"]["template"]) for it in made]
    templates += [
        (it["metadata"]["name"], it["spec"]["jobTemplate"]["spec"]["template"]) for it in of_kind(objects, "CronJob")
    ]
    return [Pod(name, template["metadata"].get("labels", {}), template["spec"]) for name, template in templates]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    known = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, _: value is not None,
        "DoesNotExist": lambda value, _: value is None,
    }
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        known[it["operator"]](labels.get(it["key"]), it.get("values", ()))
        for it in selector.get("matchExpressions", ())
    )


@dataclass(frozen=True)
class Place:
    """What a connection goes to or comes from: a pod, or an address outside."""

    port: int
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    protocol: str = "TCP"


def may(objects: list[Object], namespace: str, labels: Mapping[str, str], direction: str, other: Place) -> bool:
    """Whether network policies let a pod with these labels connect (Egress), or be connected to (Ingress)."""
    policies = [
        policy["spec"]
        for policy in of_kind(objects, "NetworkPolicy")
        if policy["metadata"]["namespace"] == namespace
        and direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], labels)
    ]
    if not policies:
        return True
    key, side = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    rules = [rule for policy in policies for rule in policy.get(key, ())]
    return any(
        any(_is(peer, namespace, other) for peer in rule[side])
        and any(it["port"] == other.port and it["protocol"] == other.protocol for it in rule["ports"])
        for rule in rules
    )


def _is(peer: Mapping[str, Any], namespace: str, other: Place) -> bool:
    if "ipBlock" in peer:
        return bool(other.address) and _within(other.address, peer["ipBlock"])
    if other.address:
        return False
    at_home = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    its_labels = {"kubernetes.io/metadata.name": other.namespace}
    return selects(peer.get("namespaceSelector", at_home), its_labels) and selects(
        peer.get("podSelector", {}), other.labels
    )


def _within(address: str, block: Mapping[str, Any]) -> bool:
    wanted = ipaddress.ip_address(address)

    def holds(cidr: str) -> bool:
        network = ipaddress.ip_network(cidr)
        return wanted.version == network.version and wanted in network

    return holds(block["cidr"]) and not any(map(holds, block.get("except", ())))


def values(part: Any, key: str) -> Iterator[Any]:
    """Everything that stands under a key, at any depth."""
    if isinstance(part, Mapping):
        for name, value in part.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(part, list):
        for value in part:
            yield from values(value, key)
