"""How far one stage of a run is, from its tasks and their pods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.cluster import words
from pipeline.cluster.workflow import Pod, Task

# a run that was stopped is over, as one that failed is
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
# of shards that differ, the first of these that one of them is in is the stage's
_PRECEDENCE = (
    "failed",
    "unknown",
    "stopped",
    "running",
    "cannot start",
    "waiting for a node",
    "trying again",
    "starting",
    "done",
    "reused",
    "skipped",
)


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Args:
        name: its component, as `fetch-teacher`.
        state: waiting, starting, waiting for a node, cannot start, running, trying again, done, reused, failed,
            stopped, skipped, or unknown.
        done: how many of its tasks ended well.
        tasks: how many it has so far: one, or one for each shard.
        seconds: how long a pod of it was there.
        gpu: what each task asks for, as `1 x nvidia.com/gpu`; "" for none, or as long as nobody knows.
        note: what it waits for, or why it was tried again.
        broken: of its tasks that failed: the driver, or each try.
        again: pods that may go on from where an earlier one was.
        last: the pods that did its work.
    """

    name: str
    state: str
    done: int = 0
    tasks: int = 0
    seconds: float | None = None
    gpu: str = ""
    note: str = ""
    broken: tuple[Task, ...] = ()
    again: tuple[Pod, ...] = ()
    last: tuple[Pod, ...] = ()


def stage_of(
    name: str, tasks: Sequence[Task], *, run_state: str, frozen: bool, retried: datetime | None, now: datetime
) -> Stage:
    """How a stage stands.

    Args:
        name: its component.
        tasks: those of its tasks that have begun.
        run_state: KFP's word for the run.
        frozen: whether nothing is known of its tasks' end.
        retried: when the run was last tried again; None where it was not.
        now: the time, with its zone.
    """
    states = [_state(task, run_state) for task in tasks]
    if not tasks:
        unseen = "unknown" if frozen else "skipped" if run_state in ENDED else "waiting"
        return Stage(name, unseen)
    state = next(it for it in _PRECEDENCE if it in states)
    if frozen and state == "done" and name == "synthesize" and run_state != "SUCCEEDED":
        state = "unknown"  # there may have been more of them than the list came to know
    tries = [attempt for task in tasks for attempt in task.tries]
    resources = tries[-1].asks if tries else {}
    return Stage(
        name,
        state,
        done=sum(it in ("done", "reused") for it in states),
        tasks=len(tasks),
        seconds=_seconds([*tries, *(pod for task in tasks for pod in task.drivers if not task.tries)], state, now),
        gpu=words.accelerators(resources),
        note=_note(tasks, states, state),
        broken=tuple(task for task, its in zip(tasks, states, strict=True) if its == "failed"),
        again=tuple(
            pod
            for task in tasks
            for number, pod in enumerate(task.tries)
            if number or pod.remade or (retried and pod.began and pod.began >= retried)
        ),
        last=tuple(task.tries[-1] for task in tasks if task.tries),
    )


def _state(task: Task, run_state: str) -> str:
    pods = (*task.drivers, *task.tries)
    if task.reused:
        return "reused"
    if task.phase == "Succeeded":
        return "done"
    # with its driver, Argo leaves out what it was to drive; until then the driver may be tried again
    driver_failed = bool(task.drivers) and task.drivers[-1].failed and (task.phase == "Omitted" or run_state in ENDED)
    if task.phase in ("Failed", "Error") or driver_failed:
        return "stopped" if run_state in ("CANCELED", "CANCELING") else "failed"
    if task.phase in ("Skipped", "Omitted"):
        return "skipped"
    if run_state in ENDED:
        return "done" if run_state == "SUCCEEDED" else "stopped" if run_state == "CANCELED" else "unknown"
    return _at_work(pods[-1], begun=bool(task.tries)) if pods else "starting"


def _at_work(pod: Pod, *, begun: bool) -> str:
    if words.is_unschedulable(pod):
        return "waiting for a node"
    if words.cannot_start(pod):
        return "cannot start"
    if pod.failed:
        return "trying again"
    return "running" if begun and pod.phase != "Pending" else "starting"


def _note(tasks: Sequence[Task], states: Sequence[str], state: str) -> str:
    there = [
        pods[-1]
        for task, its in zip(tasks, states, strict=True)
        if its == state and (pods := (*task.drivers, *task.tries))
    ]
    if state == "waiting for a node" and there:
        pod = there[0]
        since = f"since {pod.began.astimezone():%H:%M:%S}" if pod.began else ""
        asked = f"asks for {words.asks(pod.asks)}" if pod.asks else ""
        return ", ".join(filter(None, [since, asked])) + f": {words.scheduler_s(pod.message)}"
    if state == "cannot start":
        return there[0].message
    return _tried_again(tasks) if state not in ("failed", "reused") else ""


def _tried_again(tasks: Sequence[Task]) -> str:
    several = [task for task in tasks if len(task.tries) > 1 or any(pod.remade for pod in task.tries)]
    gone = [pod for task in several for pod in task.tries if pod.failed or pod.remade]
    if not gone:
        return ""
    often = f" {len(gone)} times" if len(gone) > 1 else ""
    return f"tried again{often}: {words.why(gone[-1])}"


def _seconds(pods: Iterable[Pod], state: str, now: datetime) -> float | None:
    """How long at least one of them was there: the time between the tries of a run does not count."""
    spans = sorted((pod.began, pod.ended or now) for pod in pods if pod.began is not None)
    if not spans or state == "reused":
        return None
    total, until = 0.0, spans[0][0]
    for begin, end in spans:
        total += max(0.0, (end - max(begin, until)).total_seconds())
        until = max(until, end)
    return total
