"""What Argo says of a run's tasks and pods, from the workflow that Kubeflow Pipelines keeps of it.

KFP's own list of tasks tells neither why a pod waits or failed nor what came from the cache, and it stops for good when
the workflow outgrows 1 MiB, since Argo then compresses its nodes. The workflow itself has all of it.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

# of `run(0).root(0).recover-driver(1)`, the second try of a driver, the last part
_LAST = re.compile(r"(?P<name>.+?)(?P<driver>-driver)?(?P<number>\(\d+\))?")
_BROKEN = ("Failed", "Error")


@dataclass(frozen=True)
class Pod:
    """One pod, as long as Argo remembers it.

    Args:
        name: what KFP's API gives its log under.
        phase: Argo's word: Pending, Running, Succeeded, Failed or Error.
        message: why it waits or failed, in Kubernetes' or Argo's words.
        began: when it was made, whether or not a node had room for it.
        ended: None while it goes on.
        asks: what it wants of a node: `{"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}`.
        namespace: where it is; "" where nobody says.
    """

    name: str
    phase: str
    message: str = ""
    began: datetime | None = None
    ended: datetime | None = None
    asks: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""

    @property
    def failed(self) -> bool:
        """Whether it ended, and not well."""
        return self.phase in _BROKEN

    @property
    def remade(self) -> bool:
        """Whether it was deleted without grace, and made anew under its own name, as Argo does then."""
        return self.message == "pod deleted" and not self.failed


@dataclass(frozen=True)
class Task:
    """One task of the pipeline that a container computes.

    Args:
        name: as the pipeline calls it, `merge-dreams`.
        phase: Argo's word; "" where only its driver has begun.
        drivers: KFP's own pods before it, which find out what it is to do.
        tries: its pods, in order; more than one where a try failed.
        reused: whether its result came from KFP's cache.
        message: of Argo, on the whole of it.
    """

    name: str
    phase: str = ""
    drivers: tuple[Pod, ...] = ()
    tries: tuple[Pod, ...] = ()
    reused: bool = False
    message: str = ""


@dataclass(frozen=True)
class Workflow:
    """A run as Argo sees it.

    Args:
        message: why it failed as a whole; "" for nothing.
        graph: the names of all tasks that a container computes.
        tasks: those that have begun, in the order in which they did.
        obstacles: for a driver of a loop or a condition that failed, the task inside that never began, and the driver.
    """

    message: str
    graph: tuple[str, ...]
    tasks: tuple[Task, ...]
    obstacles: tuple[tuple[str, Pod], ...] = ()


def read(manifest: str) -> Workflow:
    """A workflow from its JSON, compressed nodes or plain ones.

    Raises:
        ValueError: it is not JSON, or Argo keeps its nodes elsewhere, in a database.
    """
    document = json.loads(manifest)
    status = document.get("status") or {}
    if status.get("offloadNodeStatusVersion"):
        raise ValueError("the nodes are kept elsewhere")
    nodes = status.get("nodes") or _decompressed(status.get("compressedNodes"))
    parts = _grouped(nodes.values(), document["metadata"])
    templates = {it["name"]: it for it in document["spec"].get("templates") or []}
    dags = {node["name"]: str(node.get("templateName")) for node in nodes.values()}
    obstacles = [
        (next(_inside(templates, dags.get(parent, ""), f"{name}-driver"), name), it.drivers[-1])
        for (parent, name), it in parts.items()
        if not it.is_container and it.drivers and it.drivers[-1].failed
    ]
    graph = dict.fromkeys(name for template in templates.values() for name in _computed(template))
    tasks = tuple(it.task(name) for (_, name), it in parts.items() if it.is_container)
    return Workflow(str(status.get("message") or ""), tuple(graph), tasks, tuple(obstacles))


def _grouped(nodes: Iterable[Mapping[str, Any]], workflow: Mapping[str, str]) -> Mapping[tuple[str, str], _Parts]:
    """Nodes by the DAG and the task in it that they belong to, in the order in which they began."""
    parts: dict[tuple[str, str], _Parts] = defaultdict(_Parts)
    for node in sorted(nodes, key=lambda node: (node.get("startedAt") or "", node["name"])):
        parent, (name, driver, number) = _split(node["name"])
        if name == "executor":
            grandparent, (task, _, _) = _split(parent)
            parts[grandparent, task].take_executor(node, workflow)
        elif driver:
            parts[parent, name].take_driver(node, workflow)
        elif number is None:
            parts[parent, name].take_whole(node)
    return parts


def _split(name: str) -> tuple[str, tuple[str, str | None, str | None]]:
    parent, _, last = name.rpartition(".")
    match = _LAST.fullmatch(last)
    return parent, (match["name"], match["driver"], match["number"]) if match else (last, None, None)


class _Parts:
    """What belongs to one task of a DAG, as its nodes are met."""

    def __init__(self) -> None:
        self.whole: Mapping[str, Any] = {}
        self.drivers: list[Pod] = []
        self.tries: list[Pod] = []
        self.is_container = False
        self.skipped = False

    def take_whole(self, node: Mapping[str, Any]) -> None:
        self.whole = node
        self.is_container |= str(node.get("templateName")).endswith("container-executor")

    def take_driver(self, node: Mapping[str, Any], workflow: Mapping[str, str]) -> None:
        self.is_container |= str(node.get("templateName")).endswith("container-driver")
        if node["type"] == "Pod":
            self.drivers.append(_pod(node, workflow))

    def take_executor(self, node: Mapping[str, Any], workflow: Mapping[str, str]) -> None:
        if node["type"] == "Pod":
            self.tries.append(_pod(node, workflow))
        self.skipped |= node["type"] == "Skipped"

    def task(self, name: str) -> Task:
        phase, message = str(self.whole.get("phase") or ""), str(self.whole.get("message") or "")
        reused = self.skipped and phase == "Succeeded" and not self.tries
        return Task(name, phase, tuple(self.drivers), tuple(self.tries), reused, message)


def _pod(node: Mapping[str, Any], workflow: Mapping[str, str]) -> Pod:
    # as Argo names pods, which is not how it names nodes
    return Pod(
        name=f"{workflow['name']}-{node.get('templateName')}-{node['id'].rpartition('-')[2]}",
        phase=str(node.get("phase")),
        message=str(node.get("message") or ""),
        began=_time(node.get("startedAt")),
        ended=_time(node.get("finishedAt")),
        asks=_asks(node),
        namespace=workflow.get("namespace") or "",
    )


def _asks(node: Mapping[str, Any]) -> Mapping[str, str]:
    """What a stage's pod asks for, as KFP's driver decided it."""
    inputs = {it["name"]: it.get("value") for it in (node.get("inputs") or {}).get("parameters") or []}
    try:
        patch = json.loads(inputs.get("pod-spec-patch") or "{}")
    except ValueError:
        return {}
    main: Mapping[str, Any] = next((it for it in patch.get("containers") or [] if it.get("name") == "main"), {})
    resources = main.get("resources") or {}
    # without a request, Kubernetes takes the limit
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def _inside(templates: Mapping[str, Any], dag: str, driver: str) -> Iterator[str]:
    """The container tasks that wait for a driver of a DAG, in whatever depth."""
    for task in (templates.get(dag, {}).get("dag") or {}).get("tasks") or []:
        if driver in re.findall(r"[\w-]+", task.get("depends") or ""):
            yield from _containers(templates, task)


def _computed(template: Mapping[str, Any]) -> Iterator[str]:
    for task in (template.get("dag") or {}).get("tasks") or []:
        if str(task.get("template")).endswith("container-executor"):
            yield task["name"]


def _containers(templates: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[str]:
    template = str(task.get("template"))
    if template.endswith("container-executor"):
        yield task["name"]
        return
    for inner in (templates.get(template, {}).get("dag") or {}).get("tasks") or []:
        yield from _containers(templates, inner)


def _decompressed(text: str | None) -> Mapping[str, Any]:
    nodes: Mapping[str, Any] = json.loads(gzip.decompress(base64.b64decode(text))) if text else {}
    return nodes


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
