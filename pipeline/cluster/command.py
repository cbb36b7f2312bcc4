"""What `resprout submit` and `resprout runs` do, once their words have been understood."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline import command as local
from pipeline.cluster import following, records, submission
from pipeline.cluster.asking import Connection
from pipeline.cluster.outcome import Outcome, outcome_of
from pipeline.cluster.reasons import reasons
from pipeline.cluster.server import Server
from pipeline.cluster.settings import cluster_settings
from pipeline.cluster.showing import shown
from pipeline.cluster.state import RunState, state_of
from pipeline.cluster.submission import PIPELINES, Submission, check_for_cluster
from pipeline.cluster.submission import submit as submit_to
from pipeline.gating import append_markdown
from resprout import __version__
from resprout.errors import ClusterError, RecipeError
from resprout.files import write_atomically
from resprout.recipe import Recipe
from resprout.recipe.form import fitting

PASSED, GATE_FAILED, RUN_FAILED, CANNOT_TELL = 0, 1, 3, 4


@dataclass(frozen=True)
class Files:
    """What is written for CI systems; None: not that."""

    json: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None

    def write(self, state: RunState, why: Mapping[str, Sequence[str]], outcome: Outcome, link: str | None) -> None:
        """Write how a run stands, why its stages failed, and its figures."""
        self.write_json(records.fields_of(state, why, outcome, link))
        if self.junit is not None:
            _write(self.junit, records.junit_of(state, why))
        if self.markdown is not None:
            append_markdown(self.markdown, records.markdown_of(state, why, outcome, link))

    def write_json(self, fields: Mapping[str, Any]) -> None:
        """Write fields beside those that an earlier step wrote of the same run."""
        if self.json is not None:
            _write(self.json, json.dumps({**_of_the_same_run(self.json, fields["run_id"]), **fields}, indent=2) + "\n")


def load(
    path: Path,
    overrides: Sequence[str],
    gpu_type: str | None,
    node_selector: Sequence[str],
    shards: int | None,
    *,
    allow_images: bool,
) -> Recipe:
    """A recipe for a cluster, with some fields changed.

    Raises:
        RecipeError: it is wrong, or chooses images or secrets and may not.
    """
    labels = dict(_label(text) for text in node_selector)
    more = [
        *([] if gpu_type is None else [f"placement.gpu_type={gpu_type}"]),
        *([f"placement.gpu_node_selector={json.dumps(labels)}"] if labels else []),
        *([] if shards is None else [f"placement.num_shards={shards}"]),
    ]
    return local.load(path, [*overrides, *more], allow_images=allow_images)


def look_up(recipe: Recipe, kind: str) -> None:
    """Refuse what the pipeline could not do, what only this machine has, and an address where there is nothing.

    Raises:
        ResproutError: with what to do.
    """
    read = fitting(recipe, kind)
    check_for_cluster(read)
    submission.look_up(read, lambda line: print(line, file=sys.stderr, flush=True))


def connect(**options: Any) -> Server:
    """The server that the options and the environment name; nothing is asked of it yet."""
    settings = cluster_settings(**options)
    return Server(Connection(settings, tell=lambda line: print(line, file=sys.stderr, flush=True)))


def submit(recipe: Recipe, server: Server, kind: str, *, files: Files, **options: Any) -> Submission:
    """Create a run, and say what there is to know of it."""
    server.check()
    where = server.settings.host + (f", namespace {server.namespace}" if server.namespace else "")
    _say(f"resprout {__version__}   recipe {recipe.name}   seed {recipe.seed}   {where}")
    made = submit_to(recipe, server, kind, **options)
    _say(f"pipeline  {PIPELINES[kind]}, version {made.version}" + (", was there" if made.reused else ", uploaded"))
    _say(f"run       {made.run_id}   {made.name}")
    _say(f"link      {made.link or 'unknown: --ui, or RESPROUT_KFP_UI, says where KFP is opened'}")
    _say(f"follow    resprout runs show {made.run_id} --wait")
    _say(f"stop      resprout runs stop {made.run_id}")
    kept = ("run_id", "name", "link", "pipeline_id", "version_id", "version", "reused")
    files.write_json({**{name: getattr(made, name) for name in kept}, "state": "PENDING"})
    return made


def follow(server: Server, run_id: str, *, seconds: float, plain: bool, files: Files) -> int:
    """Wait until a run has ended, and say how.

    Returns:
        The exit code.

    Raises:
        ClusterError: it cannot be told.
        KeyboardInterrupt: after having said that the run goes on.
    """
    console = Console(file=sys.stdout)
    patient = server.patient()
    screen = following.screen_for(console, plain=plain)
    try:
        state = following.follow(patient, run_id, screen, timeout_seconds=seconds)
    except ClusterError as error:
        # the same command would submit the recipe again
        now = f"the run may well go on: resprout runs show {run_id} --wait, resprout runs stop {run_id}"
        raise ClusterError(error.what, why=error.why, now=now) from error
    except KeyboardInterrupt:
        screen.close()
        _say(f"interrupted; the run goes on\n  stop it:    resprout runs stop {run_id}")
        _say(f"  follow it:  resprout runs show {run_id} --wait")
        raise
    finally:
        screen.close()
    return exit_code_of(state, _conclude(server, state, files))


def exit_code_of(state: RunState, outcome: Outcome) -> int:
    """How a run that has ended is told to a build."""
    if state.state == "SUCCEEDED":
        return PASSED
    if outcome.gate_broken:
        return GATE_FAILED
    return CANNOT_TELL if outcome.gate_cannot_tell else RUN_FAILED


def show(server: Server, run_id: str, *, files: Files) -> None:
    """Print a run's stages, and why it failed if it did."""
    state = following.Run(server, run_id).look()
    # where nobody watches, no column is cut to fit
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 240)
    _say(f"{state.name}   {run_id}   {server.settings.link(run_id) or ''}".rstrip())
    console.print(following.table_of(state))
    if state.ended:
        _conclude(server, state, files)
    else:
        files.write(state, {}, Outcome(), server.settings.link(run_id))


def list_runs(server: Server, limit: int) -> None:
    """Print Resprout's runs, the newest first."""
    server.check()
    pipeline_ids = {server.pipeline(name) for name in PIPELINES.values()} - {None}
    ours = (run for run in server.runs() if pipeline_ids and _is_of(run, pipeline_ids))
    now = datetime.now(timezone.utc)
    states = [state_of(run, None, now) for run in islice(ours, limit)]
    rows = [("id", "state", "time", "name")]
    rows += [(state.run_id, state.state.lower(), following.duration(state.seconds), state.name) for state in states]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    _say("\n".join(lines) if states else "no run of Resprout's yet; `resprout submit RECIPE` makes one")


def stop(server: Server, run_id: str) -> None:
    """End a run that is at work."""
    server.check()
    state = following.Run(server, run_id).look()
    if state.ended:
        _say(f"{run_id} has ended already: {state.state.lower()}")
        return
    server.stop(run_id)
    _say(f"{run_id} is being stopped; what its stages made stays. Go on from there: resprout runs retry {run_id}")


def retry(server: Server, run_id: str) -> None:
    """Run again what failed or was stopped.

    Raises:
        ClusterError: it goes on, or ended well.
    """
    server.check()
    state = following.Run(server, run_id).look()
    if state.state not in ("FAILED", "CANCELED"):
        raise ClusterError(
            f"{run_id} is {state.state.lower()}",
            why="only a run that failed or was stopped can be tried again",
            now="resprout submit makes a new run; stages whose inputs are the same are not computed again",
        )
    server.retry(run_id)
    _say(f"{run_id} goes on. Follow it: resprout runs show {run_id} --wait")


def _conclude(server: Server, state: RunState, files: Files) -> Outcome:
    words = {"SUCCEEDED": "ended well", "FAILED": "failed", "CANCELED": "was stopped"}
    why, outcome, link = reasons(server, state), outcome_of(server, state), server.settings.link(state.run_id)
    for stage, lines in why.items():
        _say("\n  ".join([f"{stage} failed:", *lines]))
    if state.frozen:
        _say("Kubeflow Pipelines' list of tasks stopped before the run did: what is unknown may have ended either way")
    if lines := outcome.lines():
        _say("\n".join(["", *lines, ""]))
    _say(f"the run {words.get(state.state, state.state.lower())} after {following.time_of(state)}")
    if link:
        _say(f"link  {link}")
    files.write(state, why, outcome, link)
    return outcome


def _of_the_same_run(path: Path, run_id: str) -> dict[str, Any]:
    try:
        before = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return before if isinstance(before, dict) and before.get("run_id") == run_id else {}


def _is_of(run: Any, pipeline_ids: set[str | None]) -> bool:
    version = run.pipeline_version_reference
    return version is not None and version.pipeline_id in pipeline_ids


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RecipeError(f"--node-selector {text} is no label", now="write it as LABEL=VALUE")
    return name, value


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text)


def _say(text: str) -> None:
    Console(file=sys.stdout).print(shown(text), highlight=False, markup=False, soft_wrap=True)
