"""How a run ended, for CI systems: JUnit XML, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.cluster.following import duration, progress_of, time_of
from pipeline.cluster.outcome import Outcome
from pipeline.cluster.reasons import WHOLE_RUN
from pipeline.cluster.showing import escaped, fenced, shown
from pipeline.cluster.stages import Stage
from pipeline.cluster.state import RunState
from resprout.junit import Case, as_junit

_NOT_BEGUN = ("waiting", "starting")
_LEFT_OUT = ("stopped", "skipped", "unknown")

Why = Mapping[str, Sequence[str]]


def junit_of(state: RunState, why: Why) -> str:
    """A test case per stage that a run came to; one that failed holds why.

    Args:
        state: the run's.
        why: why each stage failed; of a run of which no stage is known to have, why it did.
    """
    cases = [_case(stage, why.get(stage.name, ())) for stage in state.stages if stage.state not in _NOT_BEGUN]
    if WHOLE_RUN in why:
        cases.append(Case(WHOLE_RUN, "failure", _text(why[WHOLE_RUN])))
    return as_junit(f"resprout {state.name}", "run", cases)


def markdown_of(state: RunState, why: Why, outcome: Outcome, link: str | None) -> str:
    """How the run ended, then each stage, then why some failed, then the figures."""
    name = f"[{escaped(state.name)}](<{link}>)" if link else escaped(state.name)
    lines = [f"**{name}: {state.state.lower()}** after {time_of(state)}", ""]
    lines += ["| stage | state | time | GPU | |", "|---|---|---|---|---|"]
    for it in state.stages:
        cells = (it.name, progress_of(it), duration(it.seconds), it.gpu, it.note)
        lines.append(f"| {' | '.join(map(escaped, cells))} |")
    for stage, text in why.items():
        lines += ["", f"**{escaped(stage)}** failed:", "", *fenced(text)]
    if figures := outcome.lines():
        lines += ["", *fenced(figures)]
    return "\n".join([*lines, ""])


def fields_of(state: RunState, why: Why, outcome: Outcome, link: str | None) -> dict[str, Any]:
    """The same for programs."""
    about = {"run_id": state.run_id, "name": state.name, "link": link, "state": state.state, "seconds": state.seconds}
    times = {"seconds_since_retry": state.since_retry, "tasks_known_to_the_end": not state.frozen}
    stages = [
        {name: getattr(stage, name) for name in ("name", "state", "done", "tasks", "seconds", "gpu", "note")}
        for stage in state.stages
    ]
    return {
        **about,
        **times,
        **outcome.fields(),
        "why": {name: list(text) for name, text in why.items()},
        "stages": stages,
    }


def _case(stage: Stage, why: Sequence[str]) -> Case:
    if stage.state == "failed":
        return Case(stage.name, "failure", _text(why) or f"{stage.name} failed")
    if stage.state in _LEFT_OUT:
        return Case(stage.name, "skipped", stage.state)
    return Case(stage.name)


def _text(lines: Sequence[str]) -> str:
    return shown("\n".join(lines))
