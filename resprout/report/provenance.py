"""The provenance chain as a list: every artifact once, what it was made of before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROOT = "this evaluation"


@dataclass(frozen=True)
class Step:
    """One artifact of the chain.

    Args:
        name, kind: what it is called nearest to the report, and what it is.
        digest: its sha256; empty where the record has none.
        parents: the indices of the steps that it was made from.
        seed, section, about, computed_on, resumed: as its manifest says.
    """

    name: str
    kind: str
    digest: str
    parents: tuple[int, ...]
    seed: int | None = None
    section: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    computed_on: str = ""
    resumed: Sequence[str] = ()

    @property
    def is_source(self) -> bool:
        return not self.parents

    @property
    def label(self) -> str:
        """What people read; dreams that are real images are not called dreams."""
        named = self.name.replace("_", " ")
        return named.replace("dreams", "real images") if self.kind == "dreams" and self.about.get("source") else named


@dataclass(frozen=True)
class Arc:
    """A line from an artifact to one that was made from it; steps are `ROW` units apart."""

    path: str


ROW = 44
REACH = 64


def chain(record: Mapping[str, Any]) -> tuple[Step, ...]:
    """Every artifact behind a nested record, each once (by digest), inputs before what was made of them.

    Args:
        record: `{name, kind, sha256, inputs, section, seed, about, computed_on, resumed}`; `inputs` holds such records.
            What is missing is left out. An empty record gives no steps.
    """
    if not record:
        return ()
    names = _names(record)
    steps: dict[str, tuple[int, Step]] = {}

    def visit(part: Mapping[str, Any]) -> int:
        key = _key(part)
        if key in steps:
            return steps[key][0]
        parents = tuple(dict.fromkeys(visit(inner) for inner in part.get("inputs") or ()))
        step = Step(
            name=names[key],
            kind=str(part.get("kind", "")),
            digest=str(part.get("sha256") or ""),
            parents=parents,
            seed=None if part.get("seed") is None else int(part["seed"]),
            section=part.get("section") or {},
            about=part.get("about") or {},
            computed_on=str(part.get("computed_on") or ""),
            resumed=part.get("resumed") or (),
        )
        steps[key] = (len(steps), step)
        return steps[key][0]

    visit(record)
    return tuple(step for _, step in steps.values())


def arcs(steps: Sequence[Step]) -> tuple[Arc, ...]:
    """Lines between rows of height `ROW`, leaving to the left of x = `REACH`: the farther apart, the wider."""
    drawn = []
    for below, step in enumerate(steps):
        for above in step.parents:
            top, bottom = ROW * above + ROW // 2, ROW * below + ROW // 2
            left = round(REACH * (1 - (below - above) / max(len(steps) - 1, 1)) - 8, 1)
            drawn.append(Arc(f"M{REACH} {top}C{left} {top} {left} {bottom} {REACH} {bottom}"))
    return tuple(drawn)


def _names(record: Mapping[str, Any]) -> dict[str, str]:
    """What each artifact is called nearest to the report."""
    names: dict[str, str] = {}
    level: list[Mapping[str, Any]] = [record]
    while level:
        for part in level:
            names.setdefault(_key(part), str(part.get("name") or (ROOT if part is record else part.get("kind", ""))))
        below: dict[str, Mapping[str, Any]] = {}
        for inner in (inner for part in level for inner in part.get("inputs") or ()):
            below.setdefault(_key(inner), inner)
        level = [inner for key, inner in below.items() if key not in names]
    return names


def _key(part: Mapping[str, Any]) -> str:
    return str(part.get("sha256") or f"{part.get('kind')} {part.get('name')} {id(part)}")
