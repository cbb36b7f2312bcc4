"""Published models: a version is published once, by one publisher, and never changed afterwards.

Under PREFIX/NAME/VERSION/ lie

- `published.json`, written last and only if there is none: which files there are, their sha256, and the folder that
  they lie in. Whoever writes it has published the version; without it there is none yet.
- that folder, called by the digest of what is in it. Another publisher's is another folder: one that died is in
  nobody's way, and its own folder is what it goes on with when it comes back.

Where the bucket keeps versions of its objects, what was stored first under each name counts: whoever overwrites or
removes a published object changes nothing for those who read it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from resprout.errors import StorageAwayError, StorageError
from resprout.files import sha256_of, write_atomically
from resprout.manifest import MANIFEST
from resprout.storage.client import ObjectAddress, ObjectFacts, Storage
from resprout.storage.records import FileName, Label, Name, Record, Sha256, parse
from resprout.storage.trial import try_keeping, try_writing

PUBLISHED = "published.json"
SCHEMA_VERSION: Literal[2] = 2
RECORD_BYTES = 2**20
"""At most: a few dozen files, and as many figures."""
DIGITS_OF_A_FOLDER = 16

FileWatch = Callable[[str, int, int], None]
"""Is told a file's name and how many of its bytes have gone through."""

_log = logging.getLogger("resprout.storage")


def _unwatched(name: str, done: int, total: int) -> None:
    return None


def _unsealed(folder: ObjectAddress) -> None:
    return None


@dataclass(frozen=True)
class Publication:
    """A published version.

    Args:
        address: of the version.
        files: name, with slashes -> sha256.
        about: facts for people and for gates, as JSON; of which `digest` is the model's, `metrics` what was measured.
        folder: where the files lie, below the address; "" for the address itself.
    """

    address: ObjectAddress
    name: str
    version: str
    files: Mapping[str, str]
    about: Mapping[str, Any]
    folder: str = ""

    @property
    def model_digest(self) -> str:
        """The digest of the model, as its manifest's bytes give it; "" where there is no model."""
        return self.files.get(f"model/{MANIFEST}", "")

    @property
    def metrics(self) -> Mapping[str, float]:
        """What was measured of the model."""
        return {name: value for name, value in self.about.get("metrics", {}).items() if value is not None}

    @property
    def files_at(self) -> ObjectAddress:
        """What the files lie below."""
        return self.address / self.folder if self.folder else self.address


class _About(Record, extra="allow"):
    digest: Sha256 | None = None
    metrics: dict[Label, float | None] = Field(default_factory=dict)


class _Published(Record):
    schema_version: Literal[1, 2]  # of 1, the files lie beside the record
    name: Name
    version: Name
    folder: Name | Literal[""] = ""
    files: Annotated[dict[FileName, Sha256], Field(min_length=1)]
    about: dict[str, JsonValue]

    @model_validator(mode="after")
    def _holds_what_is_read(self) -> _Published:
        _About.model_validate(self.about)
        return self


def publish(
    storage: Storage,
    prefix: ObjectAddress,
    name: str,
    version: str,
    files: Mapping[str, Path],
    *,
    about: Mapping[str, Any],
    watch: FileWatch = _unwatched,
    seal: Callable[[ObjectAddress], None] = _unsealed,
) -> Publication:
    """Store files as a version that is never changed afterwards.

    Args:
        prefix: where models are published.
        name, version: without slashes.
        files: their names below the version, and where they are now.
        about: facts for people and for gates, as JSON; `digest` and `metrics` are listed.
        watch: is told how far each file is.
        seal: puts what vouches for the files beside them, when all are there and before the version counts.

    Returns:
        What was published; the same again if the very same files were published before.

    Raises:
        StorageError: this version exists with other files, or the server would let it be overwritten.
    """
    digests = {file: sha256_of(path) for file, path in sorted(files.items())}
    record = _record(name, version, digests, about)
    address = prefix / name / version
    try_keeping(storage, prefix)
    if (before := _first(storage, address)) is not None:
        return _same(_read(storage, before), digests)
    folder = address / record.folder
    for file, path in sorted(files.items()):
        stored = storage.upload(path, folder / file, lambda done, total, file=file: watch(file, done, total), once=True)  # type: ignore[misc]
        if stored != digests[file]:
            raise StorageError(f"{path} changed while it was being published", now="publish it again")
    seal(folder)
    storage.claim(address / PUBLISHED, record.to_json())
    return _same(find(storage, prefix, name, version), digests)  # read back: of two at once, the first one's


def _record(name: str, version: str, digests: Mapping[str, str], about: Mapping[str, Any]) -> _Published:
    folder = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:DIGITS_OF_A_FOLDER]
    try:
        return _Published(
            schema_version=SCHEMA_VERSION, name=name, version=version, folder=folder, files={**digests}, about={**about}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what, *inner = map(str, first["loc"])
        named = {"name": name, "version": version, "files": "".join(inner[:1])}
        raise StorageError(
            f"{named.get(what, what)!r} cannot be a published model's {what.removesuffix('s')}",
            why=first["msg"],
            now="use letters, digits, . _ and -",
        ) from None


def _same(found: Publication, digests: Mapping[str, str]) -> Publication:
    """What is published, if it is these files."""
    if found.files != digests:
        raise StorageError(
            f"{found.address} is published with other files",
            why="a published version never changes: whoever pinned it must get the same bytes",
            now="publish under another version",
        )
    return found


def check_free(storage: Storage, prefix: ObjectAddress, name: str, version: str | None) -> None:
    """Refuse what publishing would be refused, hours earlier: a little is written below the prefix, and thrown away.

    It cannot tell whether there will be room for the whole model, nor whether another publisher is at this version.

    Args:
        prefix, name, version: as `publish` takes them; no version: it will be the model's digest, which nobody knows.

    Raises:
        StorageAwayError: there is no room, or no server.
        StorageError: the bucket is not there or may not be written to, its server would let a version be overwritten,
            or the version is taken.
    """
    try_writing(storage, prefix)
    try_keeping(storage, prefix)
    if version is not None and is_published(storage, prefix, name, version):
        raise StorageError(
            f"publishing.version {version} exists: {prefix / name / version}",
            why="a published version never changes: whoever pinned it must get the same bytes",
            now="give another version, or none: the model's digest is its version then",
        )


def is_published(storage: Storage, prefix: ObjectAddress, name: str, version: str) -> bool:
    """Whether this version is there, and complete."""
    return _first(storage, prefix / name / version) is not None


def find(storage: Storage, prefix: ObjectAddress, name: str, version: str) -> Publication:
    """A published version.

    Raises:
        StorageError: there is none.
    """
    address = prefix / name / version
    found = _first(storage, address)
    if found is None:
        raise StorageError(
            f"{address} is not published",
            now="`resprout models ls` lists what is; a version counts once it is complete",
        )
    return _read(storage, found)


def is_as_written(storage: Storage, publication: Publication) -> bool:
    """Whether a version's record is, byte for byte, the one that publishing these files writes."""
    found = _first(storage, publication.address)
    made = _record(publication.name, publication.version, publication.files, publication.about)
    return found is not None and storage.read(found, RECORD_BYTES) == made.to_json()


def published(storage: Storage, prefix: ObjectAddress) -> list[Publication]:
    """Every published version below a prefix, by name and version; of one that cannot be read, a warning says so."""
    marks = [found for key, found in storage.firsts(prefix).items() if key.endswith(f"/{PUBLISHED}")]
    versions = []
    for mark in marks:
        try:
            versions.append(_read(storage, mark))
        except StorageAwayError:
            raise
        except StorageError as error:
            _log.warning("storage: left out: %s", ascii(str(error))[1:-1])
    return versions


def fetch(storage: Storage, publication: Publication, directory: Path, watch: FileWatch = _unwatched) -> None:
    """Fetch a version's files into a folder, each checked against the digest it was published with."""
    firsts = storage.firsts(publication.files_at)
    for file, digest in publication.files.items():
        target, place = directory / file, publication.files_at / file
        if not target.resolve().is_relative_to(directory.resolve()):
            raise StorageError(f"{publication.address} names a file outside its folder: {file!r}")
        if place.key not in firsts:
            raise StorageError(f"{publication.address} lacks {file}", why="it was removed after it was published")
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.fetch(
            firsts[place.key],
            target,
            sha256=digest,
            watch=lambda done, total, file=file: watch(file, done, total),  # type: ignore[misc]
        )


def save_publication(publication: Publication, file: str | Path) -> None:
    """Write what was published as JSON, to be read by whatever takes it from here."""
    fields = {
        "address": str(publication.address),
        "files_at": str(publication.files_at),
        "name": publication.name,
        "version": publication.version,
        "files": dict(publication.files),
        "about": dict(publication.about),
    }
    with write_atomically(Path(file)) as path:
        path.write_text(json.dumps(fields, indent=1) + "\n")


def _first(storage: Storage, address: ObjectAddress) -> ObjectFacts | None:
    """The record of a version, as it was stored first."""
    return storage.firsts(address).get((address / PUBLISHED).key)


def _read(storage: Storage, found: ObjectFacts) -> Publication:
    record = parse(_Published, storage.read(found, RECORD_BYTES), found.address)
    address = ObjectAddress(found.address.bucket, found.address.key.removesuffix(f"/{PUBLISHED}"))
    if address.key.split("/")[-2:] != [record.name, record.version]:
        raise StorageError(
            f"{found.address} says that it is {record.name} {record.version}",
            why="it was not published there, but copied or written by hand",
            now="use the address that it was published under",
        )
    return Publication(address, record.name, record.version, record.files, record.about, record.folder)
