"""Argo's workflow of a run, and the list that Kubeflow Pipelines makes of it, as both were seen on a real cluster.

`answers/` holds what that cluster gave; `test_answers.py` holds this against it.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import kfp_server_api as kfp

NAME = "resprout-compress-x7f3a"
START = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)
DRIVER, EXECUTOR, IMPL = "system-container-driver", "system-container-executor", "system-container-impl"
# KFP's words for Argo's; any other, as Omitted, is none of them
_STATES = {
    "Pending": "PENDING",
    "Running": "RUNNING",
    "Succeeded": "SUCCEEDED",
    "Skipped": "SKIPPED",
    "Failed": "FAILED",
    "Error": "FAILED",
}


@dataclass(frozen=True)
class Play:
    """How a stage goes.

    Args:
        phase: Argo's word for its last pod, Cached for none, Driver for one whose driver fails, Skipped or Omitted.
        message: of that pod.
        before: messages of pods that failed before it.
        asks: what its pods ask for.
        began: seconds after the run's start.
    """

    phase: str
    message: str = ""
    before: Sequence[str] = ()
    asks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    began: int = 0


def play_of(state: str | Play) -> Play:
    """A stage that only has a state of KFP's, played plainly."""
    return state if isinstance(state, Play) else Play(state.capitalize())


def pod_of(stage: str, index: int = 0, attempt: int = 0) -> str:
    """The pod of a stage's task: of its first try, its second, …"""
    return f"{NAME}-{IMPL}-{_hash(f'{_task(stage, index)}(0).executor({attempt})')}"


def driver_of(stage: str) -> str:
    """The pod of a stage's driver."""
    return f"{NAME}-{DRIVER}-{_hash(_task(stage, 0) + '-driver(0)')}"


def manifest(
    spec: Mapping[str, Any], stages: Mapping[str, Sequence[Play]], *, ended: str, message: str = "", compressed: bool
) -> str:
    """The workflow's JSON.

    Args:
        spec: the compiled pipeline.
        stages: how each task of each stage goes; more than one is a loop's.
        ended: Argo's word for the whole.
        message: of the whole.
        compressed: whether it has outgrown what Argo stores plainly.
    """
    nodes = {node["id"]: node for node in nodes_of(stages, ended)}
    packed = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    held = {"compressedNodes": packed} if compressed else {"nodes": nodes}
    return json.dumps(
        {
            "metadata": {"name": NAME, "namespace": "kubeflow"},
            "spec": {"templates": list(_templates(spec))},
            "status": {"phase": ended, "message": message, **held},
        }
    )


def nodes_of(stages: Mapping[str, Sequence[Play]], ended: str) -> Iterator[dict[str, Any]]:
    """Argo's nodes."""
    for name, template in ((NAME, "entrypoint"), (f"{NAME}(0).root", "root")):
        yield from _dag(name, ended, template, begin=START)
    yield from _retried(f"{NAME}(0).root-driver", "system-dag-driver", "Succeeded", "", begin=START)
    for stage, plays in stages.items():
        for index, play in enumerate(plays):
            yield from _task_nodes(_task(stage, index), play)


def listed(nodes: Sequence[Mapping[str, Any]]) -> list[kfp.V2beta1PipelineTaskDetail]:
    """What KFP's API lists of nodes: no type, no message, no pod, and children by Argo's ids."""
    return [
        kfp.V2beta1PipelineTaskDetail(
            display_name=node["displayName"],
            state=_STATES.get(node["phase"], "RUNTIME_STATE_UNSPECIFIED"),
            start_time=_read(node["startedAt"]),
            end_time=_read(node["finishedAt"]),
            child_tasks=[kfp.PipelineTaskDetailChildTask(pod_name=child) for child in node["children"]] or None,
        )
        for node in sorted(nodes, key=lambda node: node["id"])
    ]


def _task_nodes(name: str, play: Play) -> Iterator[dict[str, Any]]:
    begin = START + timedelta(seconds=play.began)
    if play.phase in ("Skipped", "Omitted"):
        yield _node(name, "Skipped", play.phase, EXECUTOR, begin=begin)
        return
    failed = play.phase == "Driver"
    yield from _retried(f"{name}-driver", DRIVER, "Failed" if failed else "Succeeded", play.message, begin=begin)
    if failed:
        yield _node(name, "Skipped", "Omitted", EXECUTOR, begin=begin, message="omitted: depends condition not met")
        return
    executor = f"{name}(0).executor"
    if play.phase == "Cached":
        yield from _dag(name, "Succeeded", EXECUTOR, begin=begin, children=[executor])
        yield _node(executor, "Skipped", "Skipped", IMPL, begin=begin, message="when 'true != true' evaluated false")
        return
    whole = play.phase if play.phase in ("Succeeded", "Failed", "Error") else "Running"
    yield from _dag(name, whole, EXECUTOR, begin=begin, children=[executor])
    yield from _retried(executor, IMPL, play.phase, play.message, begin=begin, before=play.before, asks=play.asks)


def _dag(
    name: str, phase: str, template: str, *, begin: datetime, children: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """A DAG, which KFP lets Argo try again too."""
    yield _node(name, "Retry", phase, template, begin=begin, children=[f"{name}(0)"])
    yield _node(f"{name}(0)", "DAG", phase, template, begin=begin, children=children)


def _retried(
    name: str,
    template: str,
    phase: str,
    message: str,
    *,
    begin: datetime,
    before: Sequence[str] = (),
    asks: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[dict[str, Any]]:
    """A Retry node and its pods."""
    patch = json.dumps({"containers": [{"name": "main", "resources": asks or {}}]})
    tries = [*(("Error", text) for text in before), (phase, message)]
    names = [f"{name}({number})" for number in range(len(tries))]
    whole = phase if phase in ("Succeeded", "Failed", "Error") else "Running"
    yield _node(name, "Retry", whole, template, begin=begin, children=names, patch=patch)
    for number, (its, text) in enumerate(tries):
        at = begin + timedelta(seconds=90 * number)
        yield _node(names[number], "Pod", its, template, begin=at, message=text, patch=patch)


def _node(
    name: str,
    kind: str,
    phase: str,
    template: str,
    *,
    begin: datetime,
    children: Sequence[str] = (),
    message: str = "",
    patch: str | None = None,
) -> dict[str, Any]:
    seconds = 90 if kind in ("Pod", "DAG", "Retry") else 0
    ended = None if phase in ("Running", "Pending") else _written(begin + timedelta(seconds=seconds))
    return {
        "id": NAME if name == NAME else f"{NAME}-{_hash(name)}",
        "name": name,
        "displayName": name.rpartition(".")[2],
        "type": kind,
        "templateName": template,
        "phase": phase,
        "message": message,
        "startedAt": _written(begin),
        "finishedAt": ended,
        "children": [f"{NAME}-{_hash(child)}" for child in children],
        "inputs": {"parameters": [] if patch is None else [{"name": "pod-spec-patch", "value": patch}]},
    }


def _templates(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    components = spec["components"]
    for name, component in (("root", spec["root"]), *components.items()):
        tasks = []
        for task, its in component.get("dag", {}).get("tasks", {}).items():
            reference = its["componentRef"]["name"]
            inner = EXECUTOR if "executorLabel" in components[reference] else reference
            tasks += [{"name": f"{task}-driver", "template": DRIVER}]
            tasks += [{"name": task, "template": inner, "depends": f"{task}-driver.Succeeded"}]
        if tasks:
            yield {"name": name, "dag": {"tasks": tasks}}


def _task(stage: str, index: int) -> str:
    loop = f"for-loop-1.iteration-iterations({index}:{index}).iteration-item." if stage == "synthesize" else ""
    return f"{NAME}(0).root(0).{loop}{stage}"


def _hash(name: str) -> str:
    return str(zlib.crc32(name.encode()))


def _written(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(text: str | None) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else datetime(1970, 1, 1, tzinfo=timezone.utc)
