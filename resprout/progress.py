"""How long work reports where it stands: a callback, and one line format that people and programs read.

The core calls a `Report`; it never prints. In a component the callback is `print_lines`, whose lines
travel through a pod's log, or through the local runner, which draws a bar from them.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from resprout.wording import printable


@dataclass(frozen=True)
class Progress:
    """Where one stage stands: `done` of `total` `unit`s, with the figures worth watching (losses, agreement).

    `resumed`: nothing was done since this process began; `done` is what an earlier one left.
    """

    stage: str
    done: int
    total: int
    unit: str
    figures: Mapping[str, float] = field(default_factory=dict)
    resumed: bool = False

    def line(self) -> str:
        """`progress dreams 40/200 iterations bn=0.41 ce=0.02`: what `parse` reads back."""
        figures = "".join(f" {name}={value:.4g}" for name, value in self.figures.items())
        return f"progress {self.stage} {self.done}/{self.total} {self.unit}{figures}"

    def resumption(self) -> str:
        """`goes on from epoch 31 of 120`, which `RESUMPTION` finds in a log."""
        return f"goes on from {self.unit.removesuffix('s')} {self.done} of {self.total}"


Report = Callable[[Progress], None]

_LINE = re.compile(r"progress (?P<stage>\S+) (?P<done>\d+)/(?P<total>\d+) (?P<unit>\S+)(?P<figures>(?: \S+=\S+)*)\s*$")
RESUMPTION = re.compile(r"goes on from \S+ \d+ of \d+$")


# KFP's logging puts when and what before it
_NOTE = re.compile(r"(?:^|: )(?P<note>(?:storage|checkpoints): .+)$")


def note(line: str) -> str | None:
    """What a stage says of object storage or its checkpoints, at the end of a log line; else None.

    Why it waits, what is not kept, or what was kept and does not count.
    """
    match = _NOTE.search(line)
    return match["note"] if match else None


_REMARK = re.compile(r"^note: (?P<remark>.+)$")


def print_notes(notes: Iterable[str]) -> None:
    """Print what a stage chose where there was a choice, a line each: what `remark` reads back."""
    for text in notes:
        print(f"note: {printable(' '.join(text.split()))}", flush=True)


def remark(line: str) -> str | None:
    """What a line of `print_notes` says; None when the line is anything else."""
    match = _REMARK.match(line)
    return match["remark"] if match else None


def silent(progress: Progress) -> None:
    """The default `Report`: says nothing."""


def parse(line: str) -> Progress | None:
    """Read a `Progress.line` found at the end of a log line; None when the line is anything else."""
    match = _LINE.search(line)
    if match is None:
        return None
    figures = {name: float(value) for name, value in (pair.split("=") for pair in match["figures"].split())}
    return Progress(match["stage"], int(match["done"]), int(match["total"]), match["unit"], figures)


def print_lines(every_seconds: float = 1.0) -> Report:
    """A `Report` that prints `Progress.line`, one per `every_seconds`, and one for each tenth of the work.

    Where work goes on that an earlier process began, it says so first. Threads may share it, as those of a transfer do.
    """
    last_printed, last_tenth = float("-inf"), -1
    one_at_a_time = threading.Lock()  # print writes a line and its end apart

    def report(progress: Progress) -> None:
        nonlocal last_printed, last_tenth
        with one_at_a_time:
            if progress.resumed and 0 < progress.done < progress.total:
                print(progress.resumption(), flush=True)
            now, tenth = time.monotonic(), 10 * progress.done // max(progress.total, 1)
            if tenth != last_tenth or progress.done == progress.total or now - last_printed >= every_seconds:
                last_printed, last_tenth = now, tenth
                print(progress.line(), flush=True)

    return report
