"""What a person sees of a run: bars on a terminal, plain lines elsewhere, everything in log.txt."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pipeline.local_kfp import Listener, Task
from resprout import progress
from resprout.progress import Progress
from resprout.wording import printable

STAGES = {
    "plan": "plan",
    "fetch_teacher": "teacher",
    "fetch_test_set": "test set",
    "extract_statistics": "statistics",
    "collect_images": "images",
    "synthesize": "dreams",
    "merge_dreams": "dreams",
    "prune": "pruning",
    "scan_sensitivity": "sensitivity",
    "recover": "recovery",
    "evaluate": "evaluation",
    "gate": "gate",
    "publish": "publishing",
}
WIDTH = 100


class Screen(Protocol):
    """Shows how far one stage is, and lines that stay."""

    def begin(self, stage: str) -> None:
        """A stage starts."""

    def advance(self, where: Progress) -> None:
        """The stage at work stands here now."""

    def note(self, text: str) -> None:
        """Something that stays, while the stage goes on."""

    def line(self, text: str, right: str = "") -> None:
        """Something that stays, with `right` at the right edge; it ends the stage at work."""

    def close(self) -> None:
        """Nothing more comes."""


class PlainScreen:
    """A line per stage and per tenth of it, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tenth = 0

    def begin(self, stage: str) -> None:
        """See `Screen`."""
        self._tenth = 0

    def advance(self, where: Progress) -> None:
        """See `Screen`."""
        tenth, before = 10 * where.done // max(where.total, 1), self._tenth
        self._tenth = tenth  # falls where a stage begins its next kind of work: layers solved, then epochs
        if tenth > before:
            text = f"{where.stage:<13}{where.done}/{where.total} {where.unit}  {figures(where)}"
            self._console.print(text.rstrip(), highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def line(self, text: str, right: str = "") -> None:
        """See `Screen`."""
        self._console.print(_spread(text, right, WIDTH), highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """See `Screen`."""


class BarScreen:
    """A bar for the stage at work, above it a line for each that is done."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<12}"),
            BarColumn(20),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._current: TaskID | None = None
        self._bars.start()

    def begin(self, stage: str) -> None:
        """See `Screen`."""
        self._drop()
        self._current = self._bars.add_task(stage, total=None, text="")

    def advance(self, where: Progress) -> None:
        """See `Screen`."""
        if self._current is not None:
            text = f"{where.done}/{where.total} {where.unit}  {figures(where)}"
            self._bars.update(self._current, completed=where.done, total=where.total, text=text)

    def note(self, text: str) -> None:
        """See `Screen`."""
        self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def line(self, text: str, right: str = "") -> None:
        """See `Screen`."""
        self._drop()
        console = self._bars.console
        spread = _spread(text, right, min(WIDTH, console.width))
        console.print(spread, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """See `Screen`."""
        self._drop()
        self._bars.stop()

    def _drop(self) -> None:
        if self._current is not None:
            self._bars.remove_task(self._current)
            self._current = None


def screen_for(console: Console, *, plain: bool) -> Screen:
    """Bars where somebody watches a terminal, plain lines elsewhere or when asked for."""
    return BarScreen(console) if console.is_terminal and not plain else PlainScreen(console)


def figures(where: Progress) -> str:
    """The figures of a progress line for people: `bn 0.41  ce 0.02`."""
    return _figures(where.figures)


def _figures(named: Mapping[str, float]) -> str:
    return "  ".join(
        f"{name} {100 * value:.1f} %" if name == "agreement" else f"{name} {value:.3g}" for name, value in named.items()
    )


def _spread(text: str, right: str, width: int) -> str:
    return f"{text:<{width - len(right) - 1}} {right}" if right else text


@dataclass(frozen=True)
class Failure:
    """What a failed task said: the lines for a person, and all of what came before them."""

    message: str
    traceback: str


class Watch(Listener):
    """Logs every line, shows progress and a line per stage, remembers why a task failed."""

    def __init__(self, screen: Screen, log: TextIO) -> None:
        self._screen = screen
        self._log = log
        self._started = 0.0
        self._recent: deque[str] = deque(maxlen=400)
        self._remarks: list[str] = []
        self.failure: Failure | None = None

    def started(self, task: Task) -> None:
        """See `Listener`."""
        self._started = time.monotonic()
        self._recent.clear()
        self._remarks.clear()
        self._screen.begin(STAGES.get(task.name, task.name))

    def said(self, task: Task, line: str) -> None:
        """See `Listener`."""
        line = printable(line)
        self._log.write(f"{STAGES.get(task.name, task.name)}: {line}\n")
        self._log.flush()
        where, note = progress.parse(line), progress.note(line)
        if where is not None:
            self._screen.advance(where)
            if where.stage == "rehearsal" and where.done == where.total:
                self._remarks.append(f"rehearsed in {where.figures['seconds']:.1f} s")
            return
        self._recent.append(line)
        if note is not None:
            self._screen.note(note)
        if remark := progress.remark(line):
            self._remarks.append(remark)

    def ended(self, task: Task, exit_code: int) -> None:
        """See `Listener`."""
        stage = STAGES.get(task.name, task.name)
        if exit_code != 0:
            self.failure = failure(stage, exit_code, list(self._recent))
            if exit_code < 0:
                self._screen.line(f"{stage:<13}was killed by signal {-exit_code}")
            return
        if text := describe(task.name, task.facts()):
            self._screen.line(f"{stage:<13}{printable(text)}", f"{time.monotonic() - self._started:.0f} s")
        for remark in self._remarks:
            self._screen.line(f"{'':<13}{remark}")


_OURS = re.compile(r"^resprout\.errors\.\w+: (?P<what>.*)$")


def failure(stage: str, exit_code: int, lines: list[str]) -> Failure:
    """What to tell a person of a task that failed.

    An error that Resprout raised on purpose ends the traceback with its what, why and now; these are told.
    Anything else is a mistake of ours, or the machine's.
    """
    start = next((i for i in reversed(range(len(lines))) if lines[i].startswith("Traceback (most recent")), len(lines))
    if ours := raised_on_purpose(lines):
        return Failure("\n".join(ours), "\n".join(lines[start : len(lines) - len(ours)]))
    if exit_code < 0:
        message = f"{stage} was killed by signal {-exit_code}"
        remedy = "  why: when that is 9, the machine probably ran out of memory\n  now: run the same command again"
        return Failure(f"{message}\n{remedy}", "\n".join(lines[start:]))
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {exit_code}")
    return Failure(
        f"{stage} failed: {last.strip()}\n  why: this is a mistake in Resprout, not in your recipe\n"
        "  now: -v shows the traceback; report it with the run's log.txt",
        "\n".join(lines[start:]),
    )


def raised_on_purpose(lines: Sequence[str]) -> list[str]:
    """The what, why and now of the error that Resprout ended with; [] where it ended otherwise."""
    for index in reversed(range(len(lines))):
        if match := _OURS.match(lines[index]):
            return [match["what"], *lines[index + 1 :]]
    return []


def describe(component: str, facts: Mapping[str, Any]) -> str:
    """One line on what a stage made, from what its component logged; "" where another line says it."""
    if component == "synthesize":
        several = facts.get("num_shards", 1) > 1
        return f"shard {facts['shard']:.0f} of {facts['num_shards']:.0f}" if several else ""
    if component == "publish" and "address" not in facts:
        return ""
    if component == "fetch_test_set" and facts.get("display_name") == "no labelled test set":
        return ""
    if component == "evaluate":
        images, held_out = facts.get("num_test_images", 0), facts.get("num_held_out_dreams", 0)
        return f"{images:,.0f} labelled images, {held_out:,.0f} held-out {facts.get('held_out_kind', 'dreams')}"
    if component == "prune" and facts.get("rounds", 1) > 1:
        return f"{_LINES[component].format_map(facts)}, rounds: {facts['rounds']:.0f}"
    if component == "recover":
        found = {name: value for name, value in facts.items() if isinstance(value, float)}
        epoch = found.pop("kept_epoch", None)
        kept = "" if epoch is None else f"epoch {epoch:.0f} is kept  " if epoch else "no epoch is kept  "
        return f"{kept}{_figures(found)}"
    return _LINES[component].format_map(facts) if component in _LINES else ""


_LINES = {
    "fetch_teacher": (
        "{architecture}, {parameters:,.0f} parameters, {batchnorm_layers:.0f} BatchNorm layers, input {input}"
    ),
    "fetch_test_set": "{display_name}, for evaluation alone",
    "extract_statistics": "{display_name}",
    "collect_images": "{images:,.0f} real images to train on, {held_out_images:,.0f} held out: nothing is synthesized",
    "merge_dreams": "{images:,.0f} images to train on, {held_out_images:,.0f} held out",
    "publish": "{files:.0f} files to {address}",
    "prune": "{sparsity_percent:.1f} % of {maskable_weights:,.0f} weights, {method}",
    "scan_sensitivity": "{layers:.0f} layers; {most_sensitive} can spare least ({most_lost_percent:.1f} % of answers)",
}
