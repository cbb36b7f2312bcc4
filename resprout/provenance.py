"""Which bytes and which settings a result came from, followed back through the manifests."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from resprout.artifacts import read_manifest
from resprout.artifacts.described import About, described
from resprout.lineage import recipe_of
from resprout.manifest import record_of
from resprout.types import SparsityChoice

__all__ = ["recipe_of", "record_of", "recovery_curves", "sparsity_choice"]


class _Curves(About):
    curves: dict[str, tuple[float, ...]] = Field(default_factory=dict)


class _Choice(About):
    sparsity_choice: SparsityChoice | None = None


def recovery_curves(directory: str | Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """The curves that recovery left in a recovered student's manifest: name -> float32, shape (epochs,)."""
    about = described(_Curves, read_manifest(directory, sha256=sha256), directory)
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in about.curves.items()}


def sparsity_choice(directory: str | Path, *, sha256: str | None = None) -> SparsityChoice | None:
    """What was tried for `sparsity: auto`, from a pruned student's manifest; None where the recipe gave a number."""
    return described(_Choice, read_manifest(directory, sha256=sha256), directory).sparsity_choice
