"""Runs on a cluster, followed, listed, stopped and retried: what is shown, and the exit codes that builds rely on."""

from __future__ import annotations

import io
import json
import os
import signal
import traceback
from pathlib import Path

import pytest
from junitparser import JUnitXml
from markdown_it import MarkdownIt
from rich.console import Console

from pipeline.cluster import following
from pipeline.cluster.asking import Connection
from pipeline.cluster.server import Server
from pipeline.cluster.settings import ClusterSettings
from resprout import gate, outcome
from resprout.errors import ClusterError, GateError
from resprout.recipe import GateSection
from tests.pipeline.cluster.argo import Play, driver_of, pod_of
from tests.pipeline.cluster.conftest import Resprout
from tests.pipeline.cluster.fake_kfp import FakeKfp, Scene

RUN = "/apis/v2beta1/runs/[^/:]+"
FETCHING = Scene("RUNNING", {"fetch-teacher": "RUNNING"})
GPU = {"limits": {"nvidia.com/mig-1g.10gb": "1", "memory": "16Gi"}, "requests": {"cpu": "3"}}
MADE, MAKING = Play("Succeeded", asks=GPU), Play("Running", asks=GPU)
SHARDS = Scene("RUNNING", {"fetch-teacher": "SUCCEEDED", "synthesize": [MADE, MAKING, MAKING]})
DONE = Scene("SUCCEEDED", {"fetch-teacher": "SUCCEEDED", "synthesize": [MADE] * 3, "recover": "SUCCEEDED"})


def failed(stage: str) -> Scene:
    return Scene("FAILED", {"fetch-teacher": "SUCCEEDED", stage: "FAILED"})


def log_of_a_broken_gate() -> str:
    checks = gate.judge({"recovered.sparsity": 0.5}, GateSection(min_sparsity=0.7))
    try:
        gate.require(checks)
    except GateError:
        return outcome.told("gate", {"passed": gate.passed(checks), "checks": []}) + "\n" + traceback.format_exc()
    raise AssertionError


def only_run(kfp: FakeKfp) -> str:
    (run_id,) = kfp.runs
    return run_id


def test_wait_shows_each_change_and_ends_well(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(FETCHING, FETCHING, SHARDS, DONE)

    result = resprout("submit", recipe, "--wait", "--gpu-type", "nvidia.com/mig-1g.10gb")

    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["fetch-teacher", "running"] in lines
    assert ["synthesize", "running", "1/3", "1", "x", "nvidia.com/mig-1g.10gb"] in lines
    assert ["synthesize", "done", "1:30", "1", "x", "nvidia.com/mig-1g.10gb"] in lines
    assert result.output.count("fetch-teacher") == 2  # running, done: a line per change
    assert "the run ended well after 0:30" in result.output


def test_a_stage_that_failed_is_shown_with_what_it_said(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(FETCHING, failed("recover"))
    noise = [f"recovery {i}/40 epoch" for i in range(40)]
    kfp.logs[pod_of("recover")] = "\n".join([*noise, "RuntimeError: CUDA out of memory"])

    result = resprout("submit", recipe, "--wait")

    assert result.exit_code == 3
    assert "recover failed:" in result.output
    assert "CUDA out of memory" in result.output
    assert "recovery 0/40 epoch" not in result.output  # the tail


def test_an_error_on_purpose_is_shown_without_its_traceback(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(failed("recover"))
    traceback = 'Traceback (most recent call last):\n  File "recover.py", line 7'
    said = "resprout.errors.StorageError: cannot write s3://checkpoints/a\n  why: these credentials may not do that"
    kfp.logs[pod_of("recover")] = f"{traceback}\n{said}"

    result = resprout("submit", recipe, "--wait")

    assert "  cannot write s3://checkpoints/a\n    why: these credentials may not do that" in result.output
    assert "Traceback" not in result.output


def test_on_a_terminal_the_table_is_drawn_in_its_place(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    resprout("submit", recipe)
    kfp.plays(FETCHING, SHARDS, DONE)
    server = Server(Connection(ClusterSettings(host=kfp.url), sleep=kfp.sleep))
    written = io.StringIO()
    screen = following.screen_for(Console(file=written, force_terminal=True, width=100), plain=False)

    following.follow(server, only_run(kfp), screen, timeout_seconds=60)
    screen.close()

    assert isinstance(screen, following.TableScreen)
    assert "running 1/3" in written.getvalue()
    assert "\x1b[1A" in written.getvalue()  # the cursor goes up again


def test_where_the_server_has_no_log_the_way_to_it_is_told(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(failed("prune"))

    result = resprout("submit", recipe, "--wait")

    assert result.exit_code == 3
    labels = f"pipeline/runid={only_run(kfp)},app.kubernetes.io/component=prune"
    assert f"kubectl logs -l {labels} -c main" in result.output


def test_a_broken_gate_is_not_just_any_failure(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(failed("gate"))
    kfp.logs[pod_of("gate")] = log_of_a_broken_gate()

    result = resprout("submit", recipe, "--wait")

    assert result.exit_code == 1
    assert "min_sparsity: at least 70 %, measured: 50.00 %" in result.output


def test_a_broken_gate_is_told_to_ci_systems_in_their_formats(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, tmp_path: Path
) -> None:
    kfp.plays(failed("gate"))
    kfp.logs[pod_of("gate")] = log_of_a_broken_gate()
    (tmp_path / "summary.md").write_text("| a | table |\n|---|---|\n| of | before |\n")

    resprout("submit", recipe, "--wait", "--junit", tmp_path / "run.xml", "--markdown", tmp_path / "summary.md")

    (suite,) = JUnitXml.fromfile(str(tmp_path / "run.xml"))
    cases = {case.name: case for case in suite}
    assert (suite.tests, suite.failures, suite.errors) == (len(cases), 1, 0)
    assert cases["fetch-teacher"].is_passed
    assert "min_sparsity: at least 70 %, measured: 50.00 %" in cases["gate"].result[0].text
    page = MarkdownIt("commonmark").enable("table").render((tmp_path / "summary.md").read_text())
    assert page.count("<table>") == 2
    assert "<td>gate</td>\n<td>failed</td>" in page
    assert f'<a href="{kfp.url}/#/runs/details/{only_run(kfp)}">' in page
    assert "measured: 50.00 %" in page


def test_a_run_that_somebody_stopped_is_over(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(FETCHING)

    def stop(count: int) -> None:
        if count == 3:
            kfp.runs[only_run(kfp)].state = "CANCELED"

    kfp.on_poll = stop
    result = resprout("submit", recipe, "--wait")

    assert result.exit_code == 3
    assert "the run was stopped" in result.output


def test_waiting_outlives_a_restart_and_cut_connections(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(FETCHING, SHARDS, DONE)

    def break_down(count: int) -> None:
        if count == 2:
            kfp.fails("GET", RUN, status=503, times=1000, until=kfp.clock + 600)
            kfp.cuts("GET", RUN, times=3)

    kfp.on_poll = break_down
    result = resprout("submit", recipe, "--wait")

    assert result.exit_code == 0, result.output
    assert kfp.clock >= 600


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_run_and_says_how_to_stop_it(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, sent: signal.Signals
) -> None:
    kfp.plays(FETCHING)
    kfp.on_poll = lambda count: os.kill(os.getpid(), sent) if count == 3 else None

    result = resprout("submit", recipe, "--wait")

    assert result.exit_code == 130
    run_id = only_run(kfp)
    assert kfp.runs[run_id].state == "RUNNING"
    assert f"resprout runs stop {run_id}" in result.output
    assert "the run goes on" in result.output


def test_a_server_that_goes_away_for_good_leaves_the_run(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(FETCHING)

    def go_away(count: int) -> None:
        if count == 3:
            kfp.fails("GET", RUN, status=503, times=10_000)

    kfp.on_poll = go_away
    result = resprout("submit", recipe, "--wait")

    assert result.exit_code == 4
    assert f"resprout runs show {only_run(kfp)} --wait" in result.output
    assert "run the same again" not in result.output  # it would be a second run
    assert kfp.clock > 1500  # an upgrade of KFP is over by then


def test_of_two_branches_the_one_that_runs_counts(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    resprout("submit", recipe)
    kfp.plays(Scene("RUNNING", {"merge-dreams": "SKIPPED", "merge-dreams-2": "SUCCEEDED", "synthesize": "SKIPPED"}))

    result = resprout("runs", "show", only_run(kfp))

    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines()[1:]}
    assert rows["merge-dreams"][0] == "done"
    assert rows["synthesize"][0] == "skipped"


def test_waiting_ends_in_time_and_the_run_goes_on(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    resprout("submit", recipe)
    kfp.plays(FETCHING)
    server = Server(Connection(ClusterSettings(host=kfp.url), sleep=kfp.sleep))
    screen = following.PlainScreen(Console(quiet=True))

    with pytest.raises(ClusterError, match="has not ended after 1:00:"):
        following.follow(server, only_run(kfp), screen, timeout_seconds=60, clock=lambda: kfp.clock)

    assert kfp.clock == 60
    assert kfp.runs[only_run(kfp)].state == "RUNNING"
    assert resprout("runs", "show", only_run(kfp), "--wait", "--timeout", "0").exit_code == 4


def test_ls_shows_the_newest_of_ours(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    assert "no run of Resprout's yet" in resprout("runs", "ls").output
    for name in ("first", "second", "third"):
        resprout("submit", recipe, "--name", name)
    foreign = kfp.runs[only := next(iter(kfp.runs))]
    foreign.pipeline_version_reference.pipeline_id = "somebody-else's"

    result = resprout("runs", "ls", "--limit", 2)

    assert result.exit_code == 0, result.output
    header, *rows = [line.split() for line in result.output.splitlines()]
    assert header == ["id", "state", "time", "name"]
    assert [row[-1] for row in rows] == ["third", "second"]
    assert only not in result.output


def test_show_is_a_table_of_every_stage(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    resprout("submit", recipe)
    kfp.plays(SHARDS)

    result = resprout("runs", "show", only_run(kfp))

    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines()[1:]}
    assert rows["fetch-teacher"] == ["done", "1:30"]
    assert rows["synthesize"][:2] == ["running", "1/3"]
    assert rows["synthesize"][3:] == ["1", "x", "nvidia.com/mig-1g.10gb"]
    assert rows["recover"] == ["waiting"]


def test_stop_then_retry(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    resprout("submit", recipe)
    kfp.plays(FETCHING)
    run_id = only_run(kfp)

    at_work = resprout("runs", "retry", run_id)
    stopped = resprout("runs", "stop", run_id)
    waited = resprout("runs", "show", run_id, "--wait")
    again = resprout("runs", "stop", run_id)
    retried = resprout("runs", "retry", run_id)

    assert (at_work.exit_code, "only a run that failed" in at_work.output) == (4, True)
    assert stopped.exit_code == 0
    assert waited.exit_code == 3
    assert "has ended already: canceled" in again.output
    assert retried.exit_code == 0, retried.output
    assert kfp.runs[run_id].state == "RUNNING"


def test_an_unknown_run_is_said_to_be_unknown(kfp: FakeKfp, resprout: Resprout) -> None:
    result = resprout("runs", "show", "no-such-run")

    assert result.exit_code == 4
    assert "knows no such thing (HTTP 404): no-such-run not found" in result.output
    assert kfp.clock == 0


def test_a_namespace_of_others_is_refused_with_what_the_server_says(
    kfp: FakeKfp, resprout: Resprout, recipe: Path
) -> None:
    kfp.fails("POST", "/apis/v2beta1/runs", status=403)

    result = resprout("submit", recipe)

    assert result.exit_code == 4
    assert "does not allow it (HTTP 403)" in result.output


def test_a_broken_gate_ends_with_1_also_where_kfp_s_list_has_stopped(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, tmp_path: Path
) -> None:
    ended = {"fetch-teacher": "SUCCEEDED", "synthesize": ["SUCCEEDED"] * 8, "gate": "FAILED"}
    kfp.plays(FETCHING, Scene("RUNNING", {"fetch-teacher": "SUCCEEDED"}, compressed=True))
    kfp.scenes.append(Scene("FAILED", ended, compressed=True))
    kfp.logs[pod_of("gate")], kfp.logs_are_archived = log_of_a_broken_gate(), False

    result = resprout("submit", recipe, "--wait", "--junit", tmp_path / "run.xml")

    assert result.exit_code == 1, result.output
    assert "min_sparsity: at least 70 %, measured: 50.00 %" in result.output
    assert next(line.split()[:2] for line in result.output.splitlines() if "synthe" in line) == ["synthesize", "done"]
    assert JUnitXml.fromfile(str(tmp_path / "run.xml")).failures == 1


def test_a_gate_that_was_kept_from_judging_breaks_no_limit(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    resprout("submit", recipe)
    codes = []
    kept = ("main: OOMKilled (exit code 1)", "pod deleted")
    for play in (*(Play("Failed", message) for message in kept), Play("Driver", "main: Error (exit code 1)")):
        kfp.plays(Scene("FAILED", {"gate": play}))
        codes.append(resprout("runs", "show", only_run(kfp), "--wait").exit_code)

    assert codes == [3, 3, 3]


def test_where_nothing_but_the_stopped_list_tells_no_state_is_made_up(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, tmp_path: Path
) -> None:
    kfp.hands_out_workflows = False
    kfp.plays(Scene("RUNNING", {"fetch-teacher": "SUCCEEDED", "recover": "RUNNING"}))
    kfp.scenes.append(Scene("FAILED", {"gate": "FAILED"}, compressed=True))

    result = resprout("submit", recipe, "--wait", "--junit", tmp_path / "run.xml", "--json", tmp_path / "run.json")

    assert result.exit_code == 3, result.output
    assert "list of tasks stopped before the run did" in result.output
    stages = {stage["name"]: stage["state"] for stage in json.loads((tmp_path / "run.json").read_text())["stages"]}
    assert stages == {"fetch-teacher": "done", "recover": "unknown"}
    (suite,) = JUnitXml.fromfile(str(tmp_path / "run.xml"))
    assert [case.name for case in suite if case.result and case.result[0]._tag == "failure"] == ["run"]


def test_waiting_for_a_node_is_not_called_running(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    message = "Unschedulable: 0/2 nodes are available: 2 Insufficient nvidia.com/mig-1g.10gb. preemption: none helps."
    kfp.plays(FETCHING, Scene("RUNNING", {"recover": Play("Pending", message, asks=GPU)}), DONE)

    result = resprout("submit", recipe, "--wait")

    (line,) = [line for line in result.output.splitlines() if "waiting for a node" in line]
    assert line.startswith("recover")
    assert "asks for 1 x nvidia.com/mig-1g.10gb, 3 CPU, 16Gi memory: 0/2 nodes are available: 2 Insufficient" in line
    assert "preemption" not in line


def test_a_second_try_says_why_there_was_one_and_where_it_goes_on(
    kfp: FakeKfp, resprout: Resprout, recipe: Path
) -> None:
    again = Play("Running", before=["pod deleted"])
    kfp.plays(Scene("RUNNING", {"recover": again}), Scene("RUNNING", {"recover": again}), DONE)
    kfp.logs[pod_of("recover", attempt=1)] = "a warning\ngoes on from epoch 31 of 120\nprogress recovery 32/120 epochs"
    kfp.logs_are_archived = False  # as of a pod at work

    result = resprout("submit", recipe, "--wait")

    (line,) = [line for line in result.output.splitlines() if line.startswith("recover") and "tried" in line]
    assert "tried again: its pod was deleted, goes on from epoch 31 of 120" in line


def test_a_stage_from_the_cache_is_reused(kfp: FakeKfp, resprout: Resprout, recipe: Path) -> None:
    kfp.plays(Scene("SUCCEEDED", {"fetch-teacher": Play("Cached"), "synthesize": [Play("Cached"), "SUCCEEDED"]}))

    result = resprout("submit", recipe, "--wait")

    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line}
    assert rows["fetch-teacher"] == ["reused"]
    assert rows["synthesize"][0] == "done"


def test_a_driver_that_fails_is_a_failure_of_the_stage_that_it_drives(
    kfp: FakeKfp, resprout: Resprout, recipe: Path
) -> None:
    kfp.plays(Scene("FAILED", {"fetch-teacher": "SUCCEEDED", "recover": Play("Driver", "main: Error (exit code 1)")}))
    kfp.logs[driver_of("recover")] = (
        "I1128 02:36:04.1 16 container.go:74] parent DAG: id:35\n"
        "F1128 02:36:05.676661      16 main.go:127] KFP driver: driver.Container(pipelineName=a) failed: "
        "failed to resolve inputs: no successful task found"
    )

    result = resprout("submit", recipe, "--wait")

    assert result.exit_code == 3
    assert "recover failed:\n  Kubeflow Pipelines could not start it: failed to resolve inputs: no" in result.output
    assert "container.go" not in result.output


def test_a_run_that_ended_well_ends_with_its_figures_and_the_address(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, tmp_path: Path
) -> None:
    kfp.plays(Scene("SUCCEEDED", {"recover": "SUCCEEDED", "gate": "SUCCEEDED", "publish": "SUCCEEDED"}))
    told = {"table": ["teacher   92.2 %"], "verdict": "All is back.", "passed": True, "checks": [{"passed": True}]}
    kfp.logs[pod_of("gate")] = outcome.told("gate", told)
    kfp.logs[pod_of("publish")] = outcome.told("publish", {"address": "s3://models/small/1", "digest": "a1" * 32})
    files = ("--json", tmp_path / "run.json", "--markdown", tmp_path / "run.md")

    result = resprout("submit", recipe, "--wait", *files)

    assert (
        "teacher   92.2 %\nAll is back.\n\ngate       1 of 1 limits are kept\npublished  s3://models/small/1"
        in result.output
    )
    fields = json.loads((tmp_path / "run.json").read_text())
    assert (fields["gate_passed"], fields["published"]) == (True, "s3://models/small/1")
    assert fields["digest"] == "a1" * 32
    assert "published  s3://models/small/1" in (tmp_path / "run.md").read_text()


def test_stages_that_this_version_does_not_know_are_shown_by_their_names(
    kfp: FakeKfp, resprout: Resprout, recipe: Path
) -> None:
    resprout("submit", recipe)
    kfp.plays(Scene("SUCCEEDED", {"fetch-teacher": "SUCCEEDED", "some-older-stage": "SUCCEEDED"}))

    result = resprout("runs", "show", only_run(kfp))

    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line}
    assert rows["some-older-stage"][0] == "done"


@pytest.mark.parametrize(
    "text", ["etcdserver: request is too large", "trying to send message larger than max (2197691 vs. 2097152)"]
)
def test_a_run_that_is_too_large_to_be_retried_is_refused_at_once(
    kfp: FakeKfp, resprout: Resprout, recipe: Path, text: str
) -> None:
    resprout("submit", recipe)
    kfp.plays(failed("recover"))
    kfp.fails("POST", f"{RUN}:retry", status=500, text=f"Failed to retry run: {text}")

    result = resprout("runs", "retry", only_run(kfp))

    assert result.exit_code == 4
    assert "resprout submit makes a new run" in result.output
    assert kfp.clock == 0
