"""Why a run's stages failed, in few lines for people."""

from __future__ import annotations

from pipeline.cluster import words
from pipeline.cluster.server import Server
from pipeline.cluster.stages import Stage
from pipeline.cluster.state import RunState
from pipeline.cluster.workflow import Pod, Task
from pipeline.placement import SMALL
from pipeline.watch import raised_on_purpose

TAIL_LINES = 10
WHOLE_RUN = "run"


def reasons(server: Server, state: RunState) -> dict[str, list[str]]:
    """Of each stage that failed, why; of a run that failed while none is known to have, under `run`.

    Args:
        server: asked for logs.
        state: a run that has ended.
    """
    if state.state != "FAILED":
        return {}
    found = {stage.name: _of_stage(server, state, stage) for stage in state.failed}
    return found or {WHOLE_RUN: _of_the_whole(state)}


def _of_the_whole(state: RunState) -> list[str]:
    error = [state.error] if state.error else []
    if state.frozen:
        return [*error, "which stage failed is not known: Kubeflow Pipelines' list of tasks stopped before the run did"]
    return error or ["Kubeflow Pipelines says neither which stage failed nor why"]


def _of_stage(server: Server, state: RunState, stage: Stage) -> list[str]:
    task, *others = stage.broken
    lines = _of_task(server, state, stage.name, task)
    return [*lines, f"and {len(others)} more of its {stage.tasks} tasks"] if others else lines


def _of_task(server: Server, state: RunState, name: str, task: Task) -> list[str]:
    if not task.tries:
        pod = task.drivers[-1]
        said = words.kfp_s(server.log(state.run_id, pod)) or _why(pod)
        return [f"Kubeflow Pipelines could not start it: {said or _where_its_log_is(server, state, name)}"]
    pod = task.tries[-1]
    log = server.log(state.run_id, pod)
    own = words.own_lines(log)
    if ours := raised_on_purpose(own):
        return ours
    if words.was_killed(pod, log):
        return _out_of_memory(name, pod)
    if around := words.kfp_s(log):
        return [f"Kubeflow Pipelines could not keep what it made: {around}"]
    why = [text] if (text := _why(pod)) and not (own and text == "exit code 1") else []
    return [*why, *(own[-TAIL_LINES:] or [_where_its_log_is(server, state, name)])]


def _why(pod: Pod) -> str:
    return words.why(pod) if pod.message else ""


def _out_of_memory(name: str, pod: Pod) -> list[str]:
    field = "placement.gpu_stage_memory" if words.accelerators(pod.asks) else "placement.cpu_stage_memory"
    limit = pod.asks.get("memory")
    raised = f"raise {field}" + (f", {limit} at present" if limit else "")
    fixed = "report it: what this stage may use is no setting"
    return [
        f"it ran out of main memory and was killed (exit code {words.KILLED})",
        *([f"  why: it may use {limit}"] if limit else []),
        f"  now: {fixed if name in SMALL else raised}",
    ]


def _where_its_log_is(server: Server, state: RunState, name: str) -> str:
    where = f" -n {server.namespace}" if server.namespace else ""
    chosen = f"-l pipeline/runid={state.run_id},app.kubernetes.io/component={name}"
    return f"its log: kubectl logs{where} {chosen} -c main --tail=50"
