"""How far a run on a cluster is: the whole of it, from what Kubeflow Pipelines says and hands out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import kfp_server_api as kfp

from pipeline.cluster.listed import NAMES, base_name, is_frozen, tasks_of, time_of
from pipeline.cluster.stages import ENDED, Stage, stage_of
from pipeline.cluster.workflow import Task, Workflow


@dataclass(frozen=True)
class RunState:
    """A run as it stands.

    Args:
        state: KFP's word: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELING, CANCELED, PAUSED.
        stages: those that have begun or will, in order.
        seconds: how long it was at work.
        since_retry: of these, since it was last tried again; None where it was not.
        error: why it failed as a whole; "" for nothing.
        frozen: whether KFP's list of tasks stopped before the run did, and nothing else tells.
    """

    run_id: str
    name: str
    state: str
    stages: tuple[Stage, ...]
    seconds: float
    since_retry: float | None = None
    error: str = ""
    frozen: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.state in ENDED

    @property
    def failed(self) -> tuple[Stage, ...]:
        """The stages that failed."""
        return tuple(stage for stage in self.stages if stage.state == "failed")

    def stage(self, name: str) -> Stage | None:
        """A stage; None where the run has none of that name."""
        return next((stage for stage in self.stages if stage.name == name), None)


def state_of(run: kfp.V2beta1Run, workflow: Workflow | None, now: datetime) -> RunState:
    """What a person wants to know of a run.

    Args:
        run: as KFP's API gives it.
        workflow: what Argo says of it; None where KFP does not hand it out.
        now: the time, with its zone.
    """
    state = _word(run)
    details = run.run_details.task_details if run.run_details and run.run_details.task_details else []
    frozen = workflow is None and state in ENDED and is_frozen(details)
    tasks, graph = (tasks_of(details), ()) if workflow is None else (workflow.tasks, workflow.graph)
    if workflow is not None:
        tasks += tuple(Task(name, drivers=(driver,)) for name, driver in workflow.obstacles)
    names = {base_name(name) for name in (*graph, *(task.name for task in tasks))}
    order = [*(name for name in NAMES if name in names), *sorted(names - set(NAMES))]
    ended = time_of(run.finished_at) if state in ENDED else None
    spans = _spans(run, ended or now)
    seconds = [max(0.0, (end - begin).total_seconds()) for begin, end in spans]
    retried = spans[-1][0] if len(spans) > 1 else None
    stages = (
        stage_of(
            name,
            [it for it in tasks if base_name(it.name) == name],
            run_state=state,
            frozen=frozen,
            retried=retried,
            now=now,
        )
        for name in order
    )
    return RunState(
        run_id=str(run.run_id),
        name=str(run.display_name),
        state=state,
        # of a run that has ended, what never came up belongs to a branch that was not taken
        stages=tuple(stage for stage in stages if stage.tasks or stage.state != "skipped"),
        seconds=sum(seconds),
        since_retry=seconds[-1] if retried else None,
        error=_error(run, workflow),
        frozen=frozen,
    )


def _word(run: kfp.V2beta1Run) -> str:
    """KFP's word for a run, but of one that was stopped: that it failed is what KFP says in the end."""
    state = str(run.state or "PENDING")
    history = [str(entry.state) for entry in run.state_history or []]
    return "CANCELED" if state == "FAILED" and history[-2:-1] == ["CANCELING"] else state


def _error(run: kfp.V2beta1Run, workflow: Workflow | None) -> str:
    if workflow is not None and workflow.message:
        return workflow.message
    return str(run.error.message) if run.error and run.error.message else ""


def _spans(run: kfp.V2beta1Run, until: datetime) -> list[tuple[datetime, datetime]]:
    """When each try of a run began and ended, the last one `until` then."""
    begins: list[datetime] = [time_of(run.created_at) or until]
    ends: list[datetime] = []
    for entry in run.state_history or []:
        at = time_of(entry.update_time)
        if at is not None and entry.state in ENDED and len(ends) < len(begins):
            ends.append(at)
        elif at is not None and entry.state not in ENDED and len(ends) == len(begins):
            begins.append(at)
    return list(zip(begins, [*ends[: len(begins) - 1], until], strict=True))
