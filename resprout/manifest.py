"""What an artifact's `manifest.json` says of it. Without torch, for stages that only move bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resprout import __version__
from resprout.errors import ArtifactError
from resprout.files import sha256_of

MANIFEST = "manifest.json"
SEAL = "manifest_sha256"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, how it was made, and of what."""

    kind: str
    section: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    inputs: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    computed_on: str = ""
    schema_version: int = SCHEMA_VERSION
    resprout_version: str = __version__

    def to_json(self) -> str:
        """The manifest as it is written: sorted, with a digest of itself that shows a careless edit."""
        fields = json.loads(json.dumps(self.__dict__))
        if not self.computed_on:  # as from before it was recorded
            del fields["computed_on"]
        return _dump({**fields, SEAL: _seal(fields)})


def _dump(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def _seal(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dump(fields).encode()).hexdigest()


def record_of(name: str, directory: str | Path) -> dict[str, Any]:
    """An artifact as its users' manifests record it: `{name, kind, sha256, inputs, section, seed, about}`.

    The inputs are such records themselves. Where it is known what computed it, `computed_on` says so.

    Raises:
        ArtifactError: there is none, or its manifest cannot be read.
    """
    path = Path(directory)
    manifest = read_manifest(path)
    return {
        "name": name,
        "kind": manifest.kind,
        "sha256": sha256_of(path / MANIFEST),
        "inputs": list(manifest.inputs),
        "section": dict(manifest.section),
        "seed": manifest.seed,
        "about": {key: manifest.about[key] for key in ("source", "digest") if key in manifest.about},
        **({"computed_on": manifest.computed_on} if manifest.computed_on else {}),
    }


def digest_of(directory: str | Path) -> str:
    """An artifact's digest: the sha256 of its manifest."""
    read_manifest(directory)
    return sha256_of(Path(directory) / MANIFEST)


def read_manifest(directory: str | Path, kind: str | None = None) -> Manifest:
    """Read and check a manifest, without checking the files it lists.

    Raises:
        ArtifactError: there is none, it is not JSON, was edited, or is of another kind or schema.
    """
    path = Path(directory) / MANIFEST
    try:
        fields = json.loads(path.read_text())
        seal = fields.pop(SEAL, None)
        manifest = Manifest(**fields)
    except FileNotFoundError:
        raise ArtifactError(
            f"{directory} is not an artifact: it has no {MANIFEST}",
            now="give the folder that a Resprout stage wrote, and check that it was copied whole",
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", why="it is truncated or was edited", now="make or fetch it again"
        ) from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{directory} has schema version {manifest.schema_version}; this is Resprout {__version__}, "
            f"which reads version {SCHEMA_VERSION}",
            now=f"use Resprout {manifest.resprout_version}, which wrote it, or make it again",
        )
    if seal != _seal(fields):
        raise ArtifactError(
            f"{path} was edited after it was written",
            why="it says what the artifact is and what it was made from",
            now="fetch it again, or make it again",
        )
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{directory} is an artifact of kind '{manifest.kind}', not '{kind}'")
    return manifest
