"""What an artifact's manifest says that loading needs: read strictly, for whoever wrote it may be a stranger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from resprout.errors import ArtifactError
from resprout.manifest import Manifest, first_problem


class About(BaseModel):
    """Facts of one kind of artifact. What only people read may lie beside them."""

    model_config = ConfigDict(extra="ignore", frozen=True)


A = TypeVar("A", bound=About)


def described(form: type[A], manifest: Manifest, directory: str | Path) -> A:
    """A manifest's facts, in the form that its kind has.

    Raises:
        ArtifactError: one is missing or of another type.
    """
    try:
        return form.model_validate_json(json.dumps(manifest.about), strict=True)
    except ValidationError as error:
        raise misdescribed(directory, first_problem(error)) from None


def named_tensors(
    tensors: Mapping[str, Mapping[str, Tensor]], stem: str, directory: str | Path, *names: str
) -> list[Tensor]:
    """Tensors of the file STEM.safetensors, in the order of the names.

    Raises:
        ArtifactError: one is missing.
    """
    file = tensors.get(stem, {})
    if missing := [name for name in names if name not in file]:
        raise misdescribed(directory, f"there is no {missing[0]!a} in {stem}.safetensors")
    return [file[name] for name in names]


def misdescribed(directory: str | Path, problem: object) -> ArtifactError:
    """The error for a manifest that does not fit its folder."""
    return ArtifactError(
        f"the manifest of {directory} does not describe what the folder holds: {problem}",
        why="it was edited, or put together by hand",
        now="make it again, or fetch it again",
    )
