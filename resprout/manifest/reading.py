"""Manifests, read and checked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from resprout import __version__, strict_json
from resprout.errors import ArtifactError
from resprout.files import read_at_most, sha256_of
from resprout.manifest.form import MANIFEST, SCHEMA_VERSION, SEAL, Manifest, WrittenBy, first_problem, seal

LIMIT = 1 << 25  # bytes: the names of twenty thousand classes in each record of an evaluation's chain take two thirds


def digest_of(directory: str | Path) -> str:
    """An artifact's digest: the sha256 of its manifest."""
    return read_with_digest(directory)[1]


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
    return read_with_digest(directory, *kinds, sha256=sha256)[0]


def read_with_digest(directory: str | Path, *kinds: str, sha256: str | None = None) -> tuple[Manifest, str]:
    """As `read_manifest`; and the digest of the bytes that were read."""
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
        manifest = _parsed(content, directory)
    except (ValueError, TypeError) as error:
        raise _unreadable(path, error) from None
    if kinds and manifest.kind not in kinds:
        expected = " or ".join(f"'{kind}'" for kind in kinds)
        raise ArtifactError(f"{directory} is an artifact of kind '{manifest.kind}', not {expected}")
    return manifest, digest


def _parsed(content: bytes, directory: str | Path) -> Manifest:
    fields = dict(strict_json.parse(content))
    sealed = fields.pop(SEAL, None)
    written = WrittenBy.model_validate(fields)
    if written.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{directory} has schema version {written.schema_version}; this is Resprout {__version__}, "
            f"which reads version {SCHEMA_VERSION}",
            now=f"use Resprout {written.resprout_version}, which wrote it, or make it again",
        )
    manifest = Manifest.model_validate(fields)
    if sealed != seal(fields):
        raise ArtifactError(
            f"{directory}/{MANIFEST} was edited after it was written",
            why="it says what the artifact is and what it was made from",
            now="fetch it again, or make it again",
        )
    return manifest


def _content(path: Path) -> bytes:
    try:
        return read_at_most(path, LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{path.parent} is not an artifact: it has no {MANIFEST}",
            why="nothing says what it holds",
            now="give the folder that a Resprout stage wrote, and check that it was copied whole",
        ) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    if isinstance(error, ValidationError):
        reason = first_problem(error)
    else:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ArtifactError(
        f"{path} cannot be read: {reason}", why="it is truncated or was edited", now="make or fetch it again"
    )
