"""Published models: a version is published once, by one publisher, and never changed afterwards.

Under PREFIX/NAME/VERSION/ lie the files, and beside them

- `claim.json`, written first and only if there is none: which files, and their sha256. Whoever writes it owns the
  version. The same publisher may come back after a kill and finish, since the claim then is its own.
- `published.json`, written last: the same. A version without it is not there yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from resprout.errors import StorageError
from resprout.files import sha256_of, write_atomically
from resprout.storage.client import ObjectAddress, Storage
from resprout.storage.trial import try_writing

CLAIM, PUBLISHED = "claim.json", "published.json"
SCHEMA_VERSION = 1

FileWatch = Callable[[str, int, int], None]
"""Is told a file's name and how many of its bytes have gone through."""


def _unwatched(name: str, done: int, total: int) -> None:
    return None


@dataclass(frozen=True)
class Publication:
    """A published version.

    Args:
        address: of the version; its files lie below.
        files: name, with slashes -> sha256.
        about: facts for people and for gates, as JSON.
    """

    address: ObjectAddress
    name: str
    version: str
    files: Mapping[str, str]
    about: Mapping[str, Any]


def publish(
    storage: Storage,
    prefix: ObjectAddress,
    name: str,
    version: str,
    files: Mapping[str, Path],
    *,
    about: Mapping[str, Any],
    watch: FileWatch = _unwatched,
) -> Publication:
    """Store files as a version that is never changed afterwards.

    Args:
        prefix: where models are published.
        name, version: without slashes.
        files: their names below the version, and where they are now.
        about: facts for people and for gates, as JSON.
        watch: is told how far each file is.

    Returns:
        What was published; the same again if the very same files were published before.

    Raises:
        StorageError: this version exists with other files, or another publisher is at it.
    """
    for part, what in ((name, "name"), (version, "version"), *((file, "file") for file in files)):
        if (what != "file" and "/" in part) or not {"", ".", ".."}.isdisjoint(part.split("/")):
            raise StorageError(f"{part!r} cannot be a published model's {what}", now="use letters, digits, . _ and -")
    address = prefix / name / version
    record = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": version,
        "files": {file: sha256_of(path) for file, path in sorted(files.items())},
        "about": dict(about),
    }
    content = json.dumps(record, indent=1, sort_keys=True).encode()
    if not storage.claim(address / CLAIM, content):
        _refuse_others(storage, address, record["files"])
    for file, path in sorted(files.items()):
        storage.upload(path, address / file, lambda done, total, file=file: watch(file, done, total))  # type: ignore[misc]
    storage.claim(address / PUBLISHED, content)
    return _publication(address, record)


def _refuse_others(storage: Storage, address: ObjectAddress, files: Any) -> None:
    theirs = _read(storage, address / CLAIM)
    if theirs.get("files") == files:
        return  # our own, from a run that was killed or from one that is being repeated
    finished = storage.facts(address / PUBLISHED) is not None
    raise StorageError(
        f"{address} {'is published' if finished else 'is being published'} with other files",
        why="a published version never changes: whoever pinned it must get the same bytes",
        now="publish under another version" + ("" if finished else "; or remove it, if its publisher died"),
    )


def check_free(storage: Storage, prefix: ObjectAddress, name: str, version: str | None) -> None:
    """Refuse what publishing would be refused, hours earlier: a little is written below the prefix, and thrown away.

    It cannot tell whether there will be room for the whole model, nor whether another publisher is at this version.

    Args:
        prefix, name, version: as `publish` takes them; no version: it will be the model's digest, which nobody knows.

    Raises:
        StorageAwayError: there is no room, or no server.
        StorageError: the bucket is not there or may not be written to, or the version is taken.
    """
    try_writing(storage, prefix)
    if version is None:
        return
    address = prefix / name / version
    if is_published(storage, prefix, name, version):
        raise StorageError(
            f"publishing.version {version} exists: {address}",
            why="a published version never changes: whoever pinned it must get the same bytes",
            now="give another version, or none: the model's digest is its version then",
        )


def is_published(storage: Storage, prefix: ObjectAddress, name: str, version: str) -> bool:
    """Whether this version is there, and complete."""
    return storage.facts(prefix / name / version / PUBLISHED) is not None


def find(storage: Storage, prefix: ObjectAddress, name: str, version: str) -> Publication:
    """A published version.

    Raises:
        StorageError: there is none.
    """
    address = prefix / name / version
    if not is_published(storage, prefix, name, version):
        raise StorageError(
            f"{address} is not published",
            now="`resprout models ls` lists what is; a version counts once it is complete",
        )
    return _publication(address, _read(storage, address / PUBLISHED))


def published(storage: Storage, prefix: ObjectAddress) -> list[Publication]:
    """Every published version below a prefix, by name and version."""
    marks = [found.address for found in storage.list(prefix) if found.address.key.endswith(f"/{PUBLISHED}")]
    versions = [ObjectAddress(mark.bucket, mark.key.removesuffix(f"/{PUBLISHED}")) for mark in marks]
    return [_publication(version, _read(storage, version / PUBLISHED)) for version in versions]


def fetch(storage: Storage, publication: Publication, directory: Path, watch: FileWatch = _unwatched) -> None:
    """Fetch a version's files into a folder, each checked against the digest it was published with."""
    for file, digest in publication.files.items():
        target = directory / file
        if not target.resolve().is_relative_to(directory.resolve()):
            raise StorageError(f"{publication.address} names a file outside its folder: {file!r}")
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.download(
            publication.address / file,
            target,
            sha256=digest,
            watch=lambda done, total, file=file: watch(file, done, total),  # type: ignore[misc]
        )


def save_publication(publication: Publication, file: str | Path) -> None:
    """Write what was published as JSON, to be read by whatever takes it from here."""
    fields = {
        "address": str(publication.address),
        "name": publication.name,
        "version": publication.version,
        "files": dict(publication.files),
        "about": dict(publication.about),
    }
    with write_atomically(Path(file)) as path:
        path.write_text(json.dumps(fields, indent=1) + "\n")


def _read(storage: Storage, address: ObjectAddress) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        storage.download(address, path)
        try:
            record: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise StorageError(f"{address} is not JSON: {error}", now="it was not written by Resprout") from error
    return record


def _publication(address: ObjectAddress, record: Mapping[str, Any]) -> Publication:
    return Publication(address, record["name"], record["version"], record["files"], record["about"])
