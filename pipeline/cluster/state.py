"""How far a run on a cluster is, stage by stage, from what Kubeflow Pipelines says of its tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import kfp_server_api as kfp

from pipeline.watch import STAGES

# as Kubeflow Pipelines calls them, in the order in which they mostly run
NAMES = tuple(component.replace("_", "-") for component in STAGES)
# a run that was stopped is over, as one that failed is
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Args:
        name: its component, as `fetch-teacher`.
        state: waiting, running, done, failed, stopped or skipped.
        done: how many of its tasks ended well.
        tasks: how many it has so far: one, or one for each shard.
        seconds: from its first task's start to its last one's end, or to now.
        gpu: what each task asks for, as `1 x nvidia.com/gpu`; "" for none.
        failed_pods: where to look for a failed task's log.
    """

    name: str
    state: str
    done: int = 0
    tasks: int = 0
    seconds: float | None = None
    gpu: str = ""
    failed_pods: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunState:
    """A run as it stands.

    Args:
        state: KFP's word: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELING, CANCELED, PAUSED.
        stages: those that have begun or will, in order.
        seconds: since it was created, until it ended.
        error: what KFP says of a run that failed; "" for nothing.
    """

    run_id: str
    name: str
    state: str
    stages: tuple[Stage, ...]
    seconds: float
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.state in ENDED

    @property
    def failed(self) -> tuple[Stage, ...]:
        """The stages that failed."""
        return tuple(stage for stage in self.stages if stage.state == "failed")


def state_of(run: kfp.V2beta1Run, gpus: Mapping[str, str], now: datetime) -> RunState:
    """What a person wants to know of a run.

    Args:
        run: as KFP's API gives it.
        gpus: what each stage that wants one asks for, see `gpus_of`.
        now: the time, with its zone.
    """
    details = run.run_details.task_details if run.run_details and run.run_details.task_details else []
    state = str(run.state or "PENDING")
    ended = state in ENDED
    stages = tuple(_stage(name, details, gpus.get(name, ""), run_ended=ended, now=now) for name in NAMES)
    until = _time(run.finished_at) if ended else None
    began = _time(run.created_at) or now
    return RunState(
        run_id=str(run.run_id),
        name=str(run.display_name),
        state=state,
        stages=tuple(stage for stage in stages if stage.tasks or stage.state != "skipped"),
        seconds=max(0.0, ((until or now) - began).total_seconds()),
        error=str(run.error.message) if run.error and run.error.message else "",
    )


def gpus_of(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, str]:
    """What each stage that wants a GPU asks for.

    Args:
        spec: the compiled pipeline.
        parameters: the run's; those that it does not give have the pipeline's defaults.
    """
    inputs = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    given = {name: parameters.get(name, inputs.get(name, {}).get("defaultValue")) for name in ("gpu_count", "gpu_type")}
    if not given["gpu_type"] or str(given["gpu_count"]) == "0":
        return {}
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    wanted = {
        _stage_name(name.removeprefix("exec-"))
        for name, executor in executors.items()
        if "accelerator" in executor.get("container", {}).get("resources", {})
    }
    return {name: f"{given['gpu_count']} x {given['gpu_type']}" for name in wanted if name}


def _stage_name(task: str) -> str | None:
    # KFP numbers a component's second task: merge-dreams-2
    name = re.sub(r"-\d+$", "", task)
    return name if name in NAMES else None


def _stage(name: str, details: Sequence[Any], gpu: str, *, run_ended: bool, now: datetime) -> Stage:
    tasks = [task for task in details if _stage_name(task.display_name or "") == name]
    # what KFP runs before a task, to find out what it is to do
    drivers = [task for task in details if _stage_name((task.display_name or "").removesuffix("-driver")) == name]
    drivers = [task for task in drivers if task not in tasks]
    states = [str(task.state) for task in tasks]
    if any(str(task.state) == "FAILED" for task in (*tasks, *drivers)):
        state = "failed"
    elif not tasks:
        state = "skipped" if run_ended else "running" if drivers else "waiting"
    elif all(it == "SKIPPED" for it in states):
        state = "skipped"
    elif all(it in ("SUCCEEDED", "SKIPPED") for it in states):  # of two branches, one
        state = "done"
    else:
        state = "stopped" if run_ended else "running"
    failed = [task for task in (*tasks, *drivers) if str(task.state) == "FAILED"]
    pods = tuple(child.pod_name for task in failed for child in task.child_tasks or [] if child.pod_name)
    return Stage(name, state, states.count("SUCCEEDED"), len(tasks), _seconds(tasks, state, now), gpu, pods)


def _seconds(tasks: Iterable[Any], state: str, now: datetime) -> float | None:
    begins = [begin for task in tasks if (begin := _time(task.start_time))]
    if not begins:
        return None
    ends = [end for task in tasks if (end := _time(task.end_time))]
    until = now if state == "running" or not ends else max(ends)
    return max(0.0, (until - min(begins)).total_seconds())


def _time(value: datetime | None) -> datetime | None:
    # KFP says 1970 for what has not happened
    if value is None or value.year < 2000:
        return None
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)
