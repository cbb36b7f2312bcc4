"""A run on a cluster, followed to its end: a live table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cluster.server import Server
from pipeline.cluster.showing import shown
from pipeline.cluster.stages import Stage
from pipeline.cluster.state import RunState, state_of
from pipeline.cluster.workflow import Pod
from resprout.errors import ClusterError
from resprout.progress import RESUMPTION

POLL_SECONDS = 10.0  # Argo looks no more often
LOOKS = 6
AT_WORK = ("waiting", "starting", "waiting for a node", "cannot start", "running", "trying again")
STYLES = {
    "failed": "red",
    "cannot start": "red",
    "waiting for a node": "yellow",
    "trying again": "yellow",
    "unknown": "yellow",
    "done": "green",
    "reused": "green",
    "running": "bold",
    "waiting": "dim",
    "skipped": "dim",
}


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
        self._before: dict[str, tuple[str, str]] = {}

    def show(self, state: RunState) -> None:
        """See `Screen`."""
        for stage in state.stages:
            text = progress_of(stage)
            told = (text, stage.note)
            if stage.state not in ("waiting", "starting") and told != self._before.get(stage.name):
                self._before[stage.name] = told
                time_taken = duration(stage.seconds) if stage.state not in AT_WORK else ""
                self.line(f"{stage.name:<20}{text:<14}{time_taken:<10}{_spaced(stage.gpu, stage.note)}".rstrip())

    def line(self, text: str) -> None:
        """See `Screen`."""
        self._console.print(shown(text), highlight=False, markup=False, soft_wrap=True)

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
        self._live.console.print(shown(text), highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """See `Screen`."""
        self._live.stop()


def screen_for(console: Console, *, plain: bool) -> Screen:
    """A table where somebody watches a terminal, lines elsewhere or when asked for."""
    return TableScreen(console) if console.is_terminal and not plain else PlainScreen(console)


class Run:
    """One run, which is looked at again and again.

    Args:
        server: where it runs.
        run_id: which one.
    """

    def __init__(self, server: Server, run_id: str) -> None:
        self._server = server
        self._run_id = run_id
        self._resumptions: dict[str, str] = {}
        self._looks: dict[str, int] = {}

    def look(self) -> RunState:
        """The run as it stands now."""
        run = self._server.run(self._run_id)
        state = state_of(run, self._server.workflow(self._run_id), datetime.now(timezone.utc))
        return replace(state, stages=tuple(map(self._with_resumption, state.stages)))

    def _with_resumption(self, stage: Stage) -> Stage:
        found = [text for pod in stage.again if (text := self._resumption(pod))]
        return replace(stage, note=", ".join(filter(None, [stage.note, *found[-1:]])))

    def _resumption(self, pod: Pod) -> str:
        """Where a pod went on from; its log is read for that while it begins, and no more."""
        looks = self._looks.get(pod.name, 0)
        if not self._resumptions.get(pod.name) and looks < LOOKS and pod.phase != "Pending":
            self._looks[pod.name] = looks + 1
            found = [match[0] for line in self._server.log(self._run_id, pod) if (match := RESUMPTION.search(line))]
            self._resumptions[pod.name] = next(reversed(found), "")
        return self._resumptions.get(pod.name, "")


def follow(
    server: Server,
    run_id: str,
    screen: Screen,
    *,
    timeout_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> RunState:
    """Wait until a run has ended.

    Args:
        server: where it runs; one that is patient outlives an upgrade of KFP.
        run_id: the run.
        screen: shows each state.
        timeout_seconds: how long to wait.
        clock: seconds from some moment on.

    Returns:
        How it ended.

    Raises:
        ClusterError: it has not ended in time, or cannot be asked after; it goes on.
    """
    give_up, run = clock() + timeout_seconds, Run(server, run_id)
    while True:
        state = run.look()
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


def table_of(state: RunState) -> Group:
    """Every stage: its state, time and GPU, and what there is to say of it; below, how the run stands."""
    table = Table("stage", "state", "time", "GPU", "", box=None, pad_edge=False)
    for stage in state.stages:
        row = (stage.name, progress_of(stage), duration(stage.seconds), stage.gpu, stage.note)
        table.add_row(*(Text(shown(cell)) for cell in row), style=STYLES.get(stage.state))
    return Group(table, Text(f"{state.state.lower()}, {time_of(state)}", style="italic"))


def time_of(state: RunState) -> str:
    """How long a run was at work, and of that how long since it was tried again."""
    again = f" ({duration(state.since_retry)} since it was tried again)" if state.since_retry is not None else ""
    return duration(state.seconds) + again


def progress_of(stage: Stage) -> str:
    """`running 1/4`: its state, and for several tasks how many are done."""
    ended_well = stage.state in ("done", "reused", "skipped", "waiting")
    return stage.state if stage.tasks <= 1 or ended_well else f"{stage.state} {stage.done}/{stage.tasks}"


def _spaced(*texts: str) -> str:
    return "  ".join(filter(None, texts))


def duration(seconds: float | None) -> str:
    """`1:02:03`, `2:03` or `0:03`."""
    if seconds is None:
        return ""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
