"""Which bytes and which settings a result came from, followed back through the manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from resprout.artifacts import read_manifest
from resprout.artifacts.described import About, described
from resprout.manifest import record_of
from resprout.types import SparsityChoice

__all__ = ["recipe_of", "record_of", "recovery_curves", "sparsity_choice"]


class _Curves(About):
    curves: dict[str, tuple[float, ...]] = Field(default_factory=dict)


class _Choice(About):
    sparsity_choice: SparsityChoice | None = None


# an artifact's kind -> the recipe section that its manifest holds
_SECTIONS = {
    "teacher": "teacher",
    "dreams": "synthesis",
    "student": "pruning",
    "recovered": "recovery",
    "evaluation": "evaluation",
}


def recipe_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that made an evaluation, put together from the sections that its record's chain holds."""
    chain = {item["kind"]: item for item in reversed([*_walk(record)])}
    seeds = [item["seed"] for item in chain.values() if item.get("seed") is not None]
    sections = {name: dict(chain[kind]["section"]) for kind, name in _SECTIONS.items() if kind in chain}
    return {**({"seed": seeds[0]} if seeds else {}), **sections}


def recovery_curves(directory: str | Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """The curves that recovery left in a recovered student's manifest: name -> float32, shape (epochs,)."""
    about = described(_Curves, read_manifest(directory, sha256=sha256), directory)
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in about.curves.items()}


def sparsity_choice(directory: str | Path, *, sha256: str | None = None) -> SparsityChoice | None:
    """What was tried for `sparsity: auto`, from a pruned student's manifest; None where the recipe gave a number."""
    return described(_Choice, read_manifest(directory, sha256=sha256), directory).sparsity_choice


def _walk(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield record
    for item in record.get("inputs", ()):
        yield from _walk(item)
