"""What Kubeflow Pipelines' own list of tasks tells, where the workflow is not to be had: less, and not to the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from pipeline.cluster.workflow import Pod, Task
from pipeline.watch import STAGES

# as Kubeflow Pipelines calls them, in the order in which they mostly run
NAMES = tuple(component.replace("_", "-") for component in STAGES)
_PHASES = {
    "SUCCEEDED": "Succeeded",
    "FAILED": "Failed",
    "SKIPPED": "Skipped",
    "RUNNING": "Running",
    "PENDING": "Pending",
}


def base_name(task: str) -> str:
    """A task's component: KFP numbers its second task, `prune-2`."""
    name = re.sub(r"-\d+$", "", task)
    return name if name in NAMES else task


def tasks_of(details: Sequence[Any]) -> tuple[Task, ...]:
    """The tasks of stages that are known, and drivers of theirs that failed."""
    tasks = []
    for detail in details:
        name = str(detail.display_name or "")
        phase = _PHASES.get(str(detail.state), "Omitted")
        pod = Pod(_child(detail), phase, began=time_of(detail.start_time), ended=time_of(detail.end_time))
        if base_name(name) in NAMES:
            tasks.append(Task(name, phase, tries=(pod,)))
        elif base_name(name.removesuffix("-driver")) in NAMES and pod.failed:
            tasks.append(Task(name.removesuffix("-driver"), "Failed", drivers=(pod,)))
    return tuple(tasks)


def is_frozen(details: Sequence[Any]) -> bool:
    """Of a run that has ended: whether its list stopped before."""
    return any(str(detail.state) in ("RUNNING", "PENDING") for detail in details)


def time_of(value: datetime | None) -> datetime | None:
    """A time of KFP's, which says 1970 for what has not happened."""
    if value is None or value.year < 2000:
        return None
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def _child(detail: Any) -> str:
    # what KFP's API finds a log by, as long as Argo's nodes are not compressed
    return next((str(child.pod_name) for child in reversed(detail.child_tasks or []) if child.pod_name), "")
