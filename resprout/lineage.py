"""Records of artifacts, as a manifest nests them, followed back. Without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# an artifact's kind -> the recipe section that its manifest holds
_SECTIONS = {
    "teacher": "teacher",
    "dreams": "synthesis",
    "student": "pruning",
    "recovered": "recovery",
    "evaluation": "evaluation",
}


def walk(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A record and all that it was made from, one as often as it was used."""
    yield record
    for item in record.get("inputs", ()):
        yield from walk(item)


def recipe_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that made an evaluation, put together from the sections that its record's chain holds."""
    chain = {item["kind"]: item for item in reversed([*walk(record)])}
    seeds = [item["seed"] for item in chain.values() if item.get("seed") is not None]
    sections = {name: dict(chain[kind]["section"]) for kind, name in _SECTIONS.items() if kind in chain}
    return {**({"seed": seeds[0]} if seeds else {}), **sections}
