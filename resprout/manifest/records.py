"""Artifacts as the manifests of those say that were made from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resprout.errors import ArtifactError
from resprout.manifest.reading import read_with_digest


def record_of(name: str, directory: str | Path, *, sha256: str | None = None) -> dict[str, Any]:
    """An artifact as its users' manifests record it: `{name, kind, sha256, inputs, section, seed, about}`.

    The inputs are such records themselves. Where it is known what computed it, `computed_on` says so; where
    checkpoints went into it, `resumed`.

    Raises:
        ArtifactError: there is none, its manifest cannot be read, or has another digest than `sha256`.
    """
    manifest, digest = read_with_digest(directory, sha256=sha256)
    return {
        "name": name,
        "kind": manifest.kind,
        "sha256": digest,
        "inputs": list(manifest.inputs),
        "section": dict(manifest.section),
        "seed": manifest.seed,
        "about": {key: manifest.about[key] for key in ("source", "digest") if key in manifest.about},
        **({"computed_on": manifest.computed_on} if manifest.computed_on else {}),
        **({"resumed": list(manifest.resumed)} if manifest.resumed else {}),
    }


def records(folders: Mapping[str, str | Path], digests: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The records of a stage's inputs, to be taken when they are loaded: later, the folders may hold others.

    Args:
        folders: name -> folder of each.
        digests: name -> what the digest of each must be; None where nobody says.

    Raises:
        ArtifactError: one is none, has another digest, or none was said for it.
    """
    return [record_of(name, folder, sha256=_expected(name, digests)) for name, folder in folders.items()]


def _expected(name: str, digests: Mapping[str, str] | None) -> str | None:
    if digests is None:
        return None
    if name not in digests:
        raise ArtifactError(
            f"nobody said which digest {name} has", why="so any bytes could be put in its place", now="run it again"
        )
    return digests[name]
