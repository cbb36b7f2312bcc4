"""A run on a cluster, followed to its end: a live table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.cluster.server import Server
from pipeline.cluster.state import RunState, Stage, state_of
from pipeline.watch import raised_on_purpose
from resprout.errors import ClusterError

POLL_SECONDS = 5.0
TAIL_LINES = 20


class Screen(Protocol):
    """Shows how far a run is."""

    def show(self, state: RunState) -> None:
        """It stands here now."""

    def line(self, text: str) -> None:
        """Something that stays."""

    def close(self) -> None:
        """Nothing more comes."""


class PlainScreen:
    """A line for each change of a stage, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._before: dict[str, str] = {}

    def show(self, state: RunState) -> None:
        """See `Screen`."""
        for stage in state.stages:
            text = progress_of(stage)
            if text != self._before.get(stage.name, "waiting"):
                self._before[stage.name] = text
                time_taken = duration(stage.seconds) if stage.state != "running" else ""
                self.line(f"{stage.name:<20}{text:<14}{time_taken:<10}{stage.gpu}".rstrip())

    def line(self, text: str) -> None:
        """See `Screen`."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """See `Screen`."""


class TableScreen:
    """A table that is drawn anew in its place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def show(self, state: RunState) -> None:
        """See `Screen`."""
        self._live.update(table_of(state), refresh=True)

    def line(self, text: str) -> None:
        """See `Screen`."""
        self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """See `Screen`."""
        self._live.stop()


def screen_for(console: Console, *, plain: bool) -> Screen:
    """A table where somebody watches a terminal, lines elsewhere or when asked for."""
    return TableScreen(console) if console.is_terminal and not plain else PlainScreen(console)


def look(server: Server, run_id: str, gpus: Mapping[str, str]) -> RunState:
    """A run as it stands now."""
    return state_of(server.run(run_id), gpus, datetime.now(timezone.utc))


def follow(
    server: Server,
    run_id: str,
    gpus: Mapping[str, str],
    screen: Screen,
    *,
    timeout_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> RunState:
    """Wait until a run has ended.

    Args:
        server: where it runs; one that is patient outlives an upgrade of KFP.
        run_id: the run.
        gpus: what each stage that wants one asks for.
        screen: shows each state.
        timeout_seconds: how long to wait.
        clock: seconds from some moment on.

    Returns:
        How it ended.

    Raises:
        ClusterError: it has not ended in time, or cannot be asked after; it goes on.
    """
    give_up = clock() + timeout_seconds
    while True:
        state = look(server, run_id, gpus)
        screen.show(state)
        if state.ended:
            return state
        if clock() >= give_up:
            raise ClusterError(
                f"the run has not ended after {duration(timeout_seconds)}: {state.state.lower()}",
                why="it goes on; only the waiting has ended",
                now=f"resprout runs show {run_id} --wait waits again, resprout runs stop {run_id} ends it",
            )
        server.sleep(min(POLL_SECONDS, max(0.0, give_up - clock())))


def table_of(state: RunState) -> Table:
    """Every stage: its state, time and GPU."""
    table = Table(
        "stage",
        "state",
        "time",
        "GPU",
        box=None,
        pad_edge=False,
        caption=f"{state.state.lower()}, {duration(state.seconds)}",
    )
    styles = {"failed": "red", "done": "green", "running": "bold", "waiting": "dim", "skipped": "dim"}
    for stage in state.stages:
        row = (stage.name, progress_of(stage), duration(stage.seconds), stage.gpu)
        table.add_row(*row, style=styles.get(stage.state))
    return table


def progress_of(stage: Stage) -> str:
    """`running 1/4`: its state, and for several tasks how many are done."""
    # a stage in a condition is listed twice, once for the condition; only shards are counted
    shared = stage.name == "synthesize" and stage.tasks > 1 and stage.state in ("running", "failed", "stopped")
    return f"{stage.state} {stage.done}/{stage.tasks}" if shared else stage.state


def duration(seconds: float | None) -> str:
    """`1:02:03`, `2:03` or `0:03`."""
    if seconds is None:
        return ""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def last_words(server: Server, state: RunState) -> dict[str, list[str]]:
    """What each stage that failed said last; of one whose log the server does not keep, where to look for it."""
    said = {}
    for stage in state.failed:
        lines = [line for pod in stage.failed_pods for line in server.log(state.run_id, pod)]
        said[stage.name] = raised_on_purpose(lines) or lines[-TAIL_LINES:] or [_where_its_log_is(server, state, stage)]
    return said


def _where_its_log_is(server: Server, state: RunState, stage: Stage) -> str:
    where = f" -n {server.namespace}" if server.namespace else ""
    chosen = f"-l pipeline/runid={state.run_id},app.kubernetes.io/component={stage.name}"
    return f"its log: kubectl logs{where} {chosen} -c main --tail=50"
