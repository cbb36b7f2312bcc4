"""How a run ended, for CI systems: JUnit XML, Markdown and JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.cluster.following import duration, progress_of
from pipeline.cluster.state import RunState, Stage
from resprout.junit import Case, as_junit

# what XML cannot hold, and the colours that a program writes for a terminal
_NO_TEXT = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f]")


def junit_of(state: RunState, said: Mapping[str, Sequence[str]]) -> str:
    """A test case per stage that a run came to; one that failed holds what it said last.

    Args:
        state: the run's.
        said: what each stage that failed said last.
    """
    cases = [_case(stage, said.get(stage.name, ())) for stage in state.stages if stage.state != "waiting"]
    return as_junit(f"resprout {state.name}", "run", cases)


def markdown_of(state: RunState, said: Mapping[str, Sequence[str]], link: str | None) -> str:
    """How the run ended, then each stage, then what those that failed said last."""
    name = f"[{state.name}]({link})" if link else state.name
    lines = [f"**{name}: {state.state.lower()}** after {duration(state.seconds)}", ""]
    lines += ["| stage | state | time | GPU |", "|---|---|---|---|"]
    lines += [f"| {it.name} | {progress_of(it)} | {duration(it.seconds)} | {it.gpu} |" for it in state.stages]
    for stage, text in said.items():
        lines += ["", f"**{stage}** said last:", "", "````", *(_NO_TEXT.sub("", line) for line in text), "````"]
    return "\n".join([*lines, ""])


def fields_of(state: RunState, link: str | None) -> dict[str, Any]:
    """The same for programs."""
    about = {"run_id": state.run_id, "name": state.name, "link": link, "state": state.state, "seconds": state.seconds}
    return {**about, "stages": [asdict(stage) for stage in state.stages]}


def _case(stage: Stage, said: Sequence[str]) -> Case:
    if stage.state == "failed":
        text = _NO_TEXT.sub("", "\n".join(said))
        return Case(stage.name, "failure", text or f"{stage.name} failed")
    if stage.state in ("stopped", "skipped"):
        return Case(stage.name, "skipped", stage.state)
    return Case(stage.name)
