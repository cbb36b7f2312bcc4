"""A compiled pipeline as its stages, every input followed back to the run's input or the stage that it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PLACEHOLDER = re.compile(r"inputs\.parameters\['([^']+)'\]")


@dataclass(frozen=True)
class Stage:
    """One task that runs a container.

    Args:
        component: its component's name, as fetch-teacher.
        task: retries and the like, as compiled.
        container: image, resources and command, as compiled.
        kubernetes: its executor's platform configuration.
        parameters: what it is given -> the run's input, or TASK.OUTPUT.
        artifacts: what it is given -> TASK.OUTPUT.
        placement: a path in `kubernetes`, or `type`, `count`, `memory`, `cpus` -> the run's input, or TASK.OUTPUT.
    """

    component: str
    task: Mapping[str, Any]
    container: Mapping[str, Any]
    kubernetes: Mapping[str, Any]
    parameters: Mapping[str, str]
    artifacts: Mapping[str, str]
    placement: Mapping[str, str]


def read(path: Path) -> list[Stage]:
    """Every stage of a compiled pipeline; a reference that leads nowhere is a KeyError that names it."""
    spec, platform = yaml.safe_load_all(path.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    own = {name: name for name in spec["root"]["inputDefinitions"]["parameters"]}
    return list(_walk(spec, executors, spec["root"], own, {}))


def by_component(stages: list[Stage], what: Callable[[Stage], set[str]]) -> dict[str, set[str]]:
    """Something of each component, over all of its stages."""
    found: dict[str, set[str]] = {}
    for stage in stages:
        found.setdefault(stage.component, set()).update(what(stage))
    return found


def pods(spec: Mapping[str, Any], shards: int) -> int:
    """How many pods a run has in which nothing comes from the cache: a stage has a driver, and so has each sub-DAG."""
    return 1 + _pods(spec, spec["root"]["dag"], shards)


def _pods(spec: Any, dag: Any, shards: int) -> int:
    count = 0
    for task in dag["tasks"].values():
        component = spec["components"][task["componentRef"]["name"]]
        inner = 1 + (_pods(spec, component["dag"], shards) if "dag" in component else 1)
        count += 1 + shards * inner if "parameterIterator" in task else inner
    return count


def _walk(
    spec: Any, executors: Any, dag: Any, parameters: Mapping[str, str], artifacts: Mapping[str, str]
) -> Iterator[Stage]:
    for name, task in dag["dag"]["tasks"].items():
        target = spec["components"][task["componentRef"]["name"]]
        inputs = task.get("inputs", {})
        given = {key: _parameter(source, parameters) for key, source in inputs.get("parameters", {}).items()}
        handed = {key: _artifact(spec, dag, source, artifacts) for key, source in inputs.get("artifacts", {}).items()}
        if iterator := task.get("parameterIterator"):
            given[iterator["itemInput"]] = "an item"
            items = iterator["items"].get("inputParameter")
            assert items is None or items in given or items in parameters, (name, items)
        if "dag" in target:
            yield from _walk(spec, executors, target, given, handed)
            continue
        label = target["executorLabel"]
        container, kubernetes = spec["deploymentSpec"]["executors"][label]["container"], executors.get(label, {})
        places = dict(_placed(container, given)) | dict(_configured(kubernetes, parameters, ""))
        component = re.sub(r"-\d+$", "", label.removeprefix("exec-"))
        yield Stage(component, task, container, kubernetes, given, handed, places)


def _parameter(source: Mapping[str, Any], parameters: Mapping[Any, str]) -> str:
    if "componentInputParameter" in source:
        return parameters[source["componentInputParameter"]]
    if "taskOutputParameter" in source:
        output = source["taskOutputParameter"]
        return f"{output['producerTask']}.{output['outputParameterKey']}"
    return json.dumps(source["runtimeValue"])


def _artifact(spec: Any, dag: Any, source: Mapping[str, Any], artifacts: Mapping[str, str]) -> str:
    if "componentInputArtifact" in source:
        return artifacts[source["componentInputArtifact"]]
    output = source["taskOutputArtifact"]
    return f"{output['producerTask']}.{output['outputArtifactKey']}"


def _placed(container: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    resources = container.get("resources", {})
    accelerator = resources.get("accelerator", {})
    texts = {
        "type": accelerator.get("resourceType", ""),
        "count": accelerator.get("resourceCount", ""),
        "memory": resources.get("resourceMemoryLimit", ""),
        "cpus": resources.get("resourceCpuRequest", ""),
    }
    for name, text in texts.items():
        if match := PLACEHOLDER.search(text):
            yield name, given[match[1]]


def _configured(part: Any, parameters: Mapping[str, str], path: str) -> Iterator[tuple[str, str]]:
    if isinstance(part, Mapping) and {"componentInputParameter", "taskOutputParameter"} & part.keys():
        yield path, _parameter(part, parameters)
    elif isinstance(part, Mapping | list):
        for key, value in part.items() if isinstance(part, Mapping) else enumerate(part):
            yield from _configured(value, parameters, f"{path}/{key}")
