"""What a real Kubeflow Pipelines 2.17.0 answered, told rightly; and the fake one, held against it.

Each file of `answers/` is a run of a pipeline that was made to show one case: KFP's own answer, and the workflow that
its older API hands out, both without what nobody reads. The logs are whole.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from junitparser import JUnitXml

from pipeline.cluster import words
from pipeline.cluster.reasons import reasons
from pipeline.cluster.state import RunState, state_of
from pipeline.cluster.workflow import Pod, read
from tests.pipeline.cluster.argo import listed
from tests.pipeline.cluster.conftest import Resprout
from tests.pipeline.cluster.fake_kfp import FakeKfp, read_as

ANSWERS = Path(__file__).parent / "answers"
NOW = datetime(2026, 11, 28, 2, 50, tzinfo=timezone.utc)


def answer(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ANSWERS / f"{name}.json").read_text())
    return found


def log(name: str) -> list[str]:
    return (ANSWERS / f"{name}.log").read_text().splitlines()


def state(name: str, *, workflow: bool = True) -> RunState:
    found = answer(name)
    run = read_as("V2beta1Run", json.dumps(found["run"]).encode())
    return state_of(run, read(json.dumps(found["workflow"])) if workflow else None, NOW)


def states(of: RunState) -> dict[str, str]:
    return {stage.name: stage.state for stage in of.stages}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("loop", ["reused", "done", "done", "done", "done"]),
        ("deleted", ["reused", "done", "done", "done", "done"]),
        ("compressed", ["done", "done", "done", "done", "done"]),
        ("oom", ["done", "failed", "failed", "skipped", "skipped"]),
        ("driver", ["done", "failed", "skipped"]),
        ("stopped", ["done", "stopped", "stopped", "skipped", "skipped"]),
        ("retried", ["reused", "done", "failed", "skipped", "skipped"]),
    ],
)
def test_each_stage_s_state(name: str, told: list[str]) -> None:
    assert list(states(state(name)).values()) == told


def test_a_workflow_that_outgrew_argo_is_read_to_its_end() -> None:
    blind, seeing = state("compressed", workflow=False), state("compressed")

    assert blind.frozen
    assert not seeing.frozen
    assert "publish" not in states(blind)  # KFP's list stopped before it began
    synthesize = seeing.stage("synthesize")
    assert synthesize is not None
    assert (synthesize.done, synthesize.tasks) == (6, 6)


def test_a_pod_without_a_node_is_said_to_wait_since_when_and_for_what() -> None:
    recover = state("pending").stage("recover")

    assert recover is not None
    assert recover.state == "waiting for a node"
    since = datetime(2026, 11, 28, 2, 43, 42, tzinfo=timezone.utc).astimezone()
    assert recover.note == (
        f"since {since:%H:%M:%S}, asks for 100 CPU, 256Mi memory: "
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s)"
    )


def test_a_deleted_pod_is_why_there_was_a_second_try() -> None:
    recover = state("deleted").stage("recover")

    assert recover is not None
    assert recover.note == "tried again: its pod was deleted"
    assert [pod.phase for pod in recover.again] == ["Succeeded"]


def test_the_time_between_a_failure_and_a_retry_does_not_count() -> None:
    retried = state("retried")

    assert retried.since_retry is not None
    history = [entry["state"] for entry in answer("retried")["run"]["state_history"] if "state" in entry]
    assert history == ["PENDING", "RUNNING", "FAILED", "RUNNING", "FAILED"]
    times = [datetime.fromisoformat(it["update_time"]) for it in answer("retried")["run"]["state_history"]]
    between = (times[-2] - times[-3]).total_seconds()
    whole = (times[-1] - datetime.fromisoformat(answer("retried")["run"]["created_at"])).total_seconds()
    assert retried.seconds == pytest.approx(whole - between, abs=2)


def test_a_run_that_somebody_stopped_is_not_one_that_failed() -> None:
    assert answer("stopped")["run"]["state"] == "FAILED"  # KFP's last word on it
    assert state("stopped").state == "CANCELED"


def said(name: str, logs: str) -> dict[str, list[str]]:
    server: Any = SimpleNamespace(log=lambda run_id, pod: log(logs), namespace=None)
    return reasons(server, state(name))


def test_a_driver_that_failed_is_its_stage_s_failure_with_its_reason() -> None:
    (line,) = said("driver", "driver")["recover"]

    assert line.startswith("Kubeflow Pipelines could not start it: failed to init podSpecPatch: quantities must match")


def test_a_stage_that_ran_out_of_memory_says_so_and_which_input_to_raise() -> None:
    assert said("oom", "oom")["recover"] == [
        "it ran out of main memory and was killed (exit code 137)",
        "  why: it may use 256Mi",
        "  now: raise placement.cpu_stage_memory, 256Mi at present",
    ]


def test_an_error_of_ours_is_all_that_is_told_of_a_log() -> None:
    assert said("retried", "failed")["recover"] == [
        "cannot write s3://checkpoints/a",
        "  why: these credentials may not do that",
        "  now: ask",
    ]


@pytest.mark.parametrize(("name", "own"), [("driver", 0), ("oom", 2), ("failed", 17)])
def test_no_line_of_kfp_s_or_argo_s_is_taken_for_a_stage_s(name: str, own: int) -> None:
    assert len(words.own_lines(log(name))) == own


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("The node was low on resource: memory. Threshold quantity: 100Mi.", "evicted: the node was low on resource"),
        ("Pod was active on the node longer than the specified deadline", "longer than placement.timeout_seconds"),
        ("main: Error (exit code 2)", "exit code 2"),
        ("main: OOMKilled (exit code 137)", "it ran out of memory"),
    ],
)
def test_why_a_pod_failed(message: str, why: str) -> None:
    assert why in words.why(Pod("p", "Failed", message))


@pytest.mark.parametrize("name", ["loop", "deleted", "oom", "driver", "stopped"])
def test_the_fake_lists_nodes_as_kfp_does(name: str) -> None:
    found = answer(name)
    nodes = list(found["workflow"]["status"]["nodes"].values())
    ours = [(it.display_name, it.state, _ids(it)) for it in listed([{"children": [], **node} for node in nodes])]
    run = read_as("V2beta1Run", json.dumps(found["run"]).encode())
    theirs = [
        (it.display_name, it.state or "RUNTIME_STATE_UNSPECIFIED", _ids(it))
        for it in run.run_details.task_details
        if it.display_name  # the others are what KFP keeps of results that may be reused
    ]
    assert sorted(ours) == sorted(theirs)


def _ids(detail: Any) -> list[str]:
    return sorted(child.pod_name for child in detail.child_tasks or [])


@pytest.mark.parametrize("name", ["oom", "driver", "retried"])
@pytest.mark.parametrize("workflow", [True, False])
def test_a_run_that_failed_has_a_failure_for_ci(
    kfp: FakeKfp, resprout: Resprout, tmp_path: Path, name: str, workflow: bool
) -> None:
    found = answer(name)
    kfp.answers[found["run"]["run_id"]], kfp.hands_out_workflows = found, workflow

    result = resprout("runs", "show", found["run"]["run_id"], "--junit", tmp_path / "run.xml")

    assert result.exit_code == 0, result.output
    assert JUnitXml.fromfile(str(tmp_path / "run.xml")).failures >= 1
