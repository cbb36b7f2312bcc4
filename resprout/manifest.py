"""What an artifact's `manifest.json` says of it. Without torch, for stages that only move bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from resprout import __version__, strict_json
from resprout.errors import ArtifactError
from resprout.files import opened, sha256_of

MANIFEST = "manifest.json"
SEAL = "manifest_sha256"
SCHEMA_VERSION = 1
LIMIT = 1 << 26  # bytes: the names of twenty thousand classes in each record of an evaluation's chain take a third


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, how it was made, and of what.

    `resumed` holds the sha256 of each checkpoint whose state went into it.
    """

    kind: str
    section: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    inputs: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    computed_on: str = ""
    resumed: Sequence[str] = ()
    schema_version: int = SCHEMA_VERSION
    resprout_version: str = __version__

    def to_json(self) -> str:
        """The manifest as it is written: sorted, with a digest of itself that shows a careless edit."""
        fields = json.loads(json.dumps(self.__dict__))
        for name in ("computed_on", "resumed"):  # as from before they were recorded
            if not fields[name]:
                del fields[name]
        return _dump({**fields, SEAL: _seal(fields)})


def _dump(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def _seal(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dump(fields).encode()).hexdigest()


def record_of(name: str, directory: str | Path, *, sha256: str | None = None) -> dict[str, Any]:
    """An artifact as its users' manifests record it: `{name, kind, sha256, inputs, section, seed, about}`.

    The inputs are such records themselves. Where it is known what computed it, `computed_on` says so; where
    checkpoints went into it, `resumed`.

    Raises:
        ArtifactError: there is none, its manifest cannot be read, or has another digest than `sha256`.
    """
    manifest, digest = _read(directory, (), sha256)
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


def digest_of(directory: str | Path) -> str:
    """An artifact's digest: the sha256 of its manifest."""
    return _read(directory, (), None)[1]


def check(directory: str | Path, *kinds: str, sha256: str | None = None) -> Manifest:
    """Check every byte of an artifact against its manifest. Further files in its folder are left alone.

    Args:
        directory: the artifact's folder.
        kinds: what it may be; anything where none is given.
        sha256: what the manifest's digest must be.

    Raises:
        ArtifactError: as `read_manifest`; or a file is missing, cannot be read, or differs from its digest.
    """
    manifest = read_manifest(directory, *kinds, sha256=sha256)
    for name in manifest.files:
        check_file(directory, name, manifest)
    return manifest


def check_file(directory: str | Path, name: str, manifest: Manifest, copy: BinaryIO | None = None) -> None:
    """Check one file of an artifact; the bytes that were checked are written to `copy`.

    Raises:
        ArtifactError: it is missing, cannot be read, or differs from its digest.
    """
    path, expected = Path(directory) / name, manifest.files[name]
    try:
        actual = sha256_of(path, copy)
    except FileNotFoundError:
        raise ArtifactError(f"{directory} lacks {name}", now="copy it whole, or make it again") from None
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror}", now="make it readable, or fetch it again"
        ) from None
    if actual != expected:
        raise ArtifactError(
            f"{path} has sha256 {actual[:16]}…, but its manifest says {expected[:16]}…",
            why="it is truncated or was changed after it was written",
            now="fetch it again, or make it again",
        )


def read_manifest(directory: str | Path, *kinds: str, sha256: str | None = None) -> Manifest:
    """Read and check a manifest, without checking the files it lists.

    Args:
        directory: the artifact's folder.
        kinds: what it may be; anything where none is given.
        sha256: what the digest of the bytes that are read must be.

    Raises:
        ArtifactError: there is none, it is not JSON, was edited, is of another kind or schema, or has another digest.
    """
    return _read(directory, kinds, sha256)[0]


def _read(directory: str | Path, kinds: Sequence[str], sha256: str | None) -> tuple[Manifest, str]:
    path = Path(directory) / MANIFEST
    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, digest):
        raise ArtifactError(
            f"{directory} has digest {digest[:16]}…, not {sha256[:16]}…",
            why="it is not what was written, or agreed on, before",
            now="fetch it again, or make it again",
        )
    try:
        fields = strict_json.parse(content)
        seal = fields.pop(SEAL, None)
        manifest = Manifest(**fields)
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from None
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
    if kinds and manifest.kind not in kinds:
        expected = " or ".join(f"'{kind}'" for kind in kinds)
        raise ArtifactError(f"{directory} is an artifact of kind '{manifest.kind}', not {expected}")
    return manifest, digest


def _content(path: Path) -> bytes:
    try:
        with opened(path) as file:
            content = file.read(LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{path.parent} is not an artifact: it has no {MANIFEST}",
            now="give the folder that a Resprout stage wrote, and check that it was copied whole",
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > LIMIT:
        raise _unreadable(path, ValueError(f"it is larger than {LIMIT >> 20} MiB"))
    return content


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ArtifactError(
        f"{path} cannot be read: {reason}", why="it is truncated or was edited", now="make or fetch it again"
    )
