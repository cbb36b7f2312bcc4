"""What a run or a published version says of itself, in the form that others read: an in-toto statement.

Its subjects are files by their sha256; its predicate is SLSA's provenance: of what they were made, by which recipe, by
whom. `_type` and `predicateType` name the two specifications. A statement holds times, and is therefore no part of an
artifact: the same work gives the same artifacts, and each run a statement of its own.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from resprout import __version__, strict_json
from resprout.errors import ArtifactError
from resprout.files import read_at_most, sha256_of
from resprout.lineage import walk
from resprout.manifest import MANIFEST, read_manifest

STATEMENT = "statement.json"
SEAL = "resprout_seal"
LARGEST_BYTES = 16 * 2**20
"""Some hundred thousand files; a statement of Resprout's has some dozens."""
LONGEST_WORDS = 4096
_PACKAGES = ("torch", "torchvision", "timm", "transformers", "torch-pruning")


def _inside(name: str) -> str:
    parts = name.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or PurePosixPath(name).is_absolute():
        raise ValueError("is no name of a file below its folder")
    return name


# no control characters, which a terminal would obey
Words = Annotated[str, StringConstraints(max_length=LONGEST_WORDS, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[Words, StringConstraints(min_length=1), AfterValidator(_inside)]
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Sha256(_Strict):
    """A set of digests, as in-toto has it."""

    sha256: Digest


class Subject(_Strict):
    """A file that the statement is about."""

    name: FileName
    digest: Sha256


class Resource(_Strict):
    """Something that was used or made on the way."""

    name: Words
    uri: Words | None = None
    digest: Sha256 | None = None
    annotations: dict[Words, Words] = {}


class BuildDefinition(_Strict):
    """What was asked for, and of what it was made."""

    build_type: Literal["urn:resprout:compression:1"] = Field(default="urn:resprout:compression:1", alias="buildType")
    external_parameters: dict[str, Any] = Field(alias="externalParameters")
    resolved_dependencies: list[Resource] = Field(alias="resolvedDependencies")


class Maker(_Strict):
    """Who says so: `id` is a URI, `version` holds Resprout's, Python's and libraries'."""

    id: Annotated[Words, StringConstraints(min_length=1)]
    version: dict[Words, Words] = {}


class Metadata(_Strict):
    """Which run it was, and when."""

    invocation_id: Words | None = Field(default=None, alias="invocationId")
    started_on: Moment | None = Field(default=None, alias="startedOn")
    finished_on: Moment = Field(alias="finishedOn")


class RunDetails(_Strict):
    """By whom, when, and what else was made."""

    builder: Maker
    metadata: Metadata
    byproducts: list[Resource] = []


class Provenance(_Strict):
    """SLSA's predicate."""

    build_definition: BuildDefinition = Field(alias="buildDefinition")
    run_details: RunDetails = Field(alias="runDetails")


class Statement(_Strict):
    """An in-toto statement, as Resprout writes it."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(default="https://in-toto.io/Statement/v1", alias="_type")
    subject: list[Subject] = Field(min_length=1)
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = Field(
        default="https://slsa.dev/provenance/v1", alias="predicateType"
    )
    predicate: Provenance

    @property
    def files(self) -> dict[str, str]:
        """Each file's name and sha256."""
        return {subject.name: subject.digest.sha256 for subject in self.subject}

    def to_bytes(self) -> bytes:
        """The file: sorted, and with a digest of itself beside the predicate's fields, where SLSA has room for it."""
        fields = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return _dump({**fields, "predicate": {**fields["predicate"], SEAL: _seal(fields)}})


@dataclass(frozen=True)
class Builder:
    """Where a result was made, as whoever runs that place names it.

    Args:
        id: a URI: of a Kubeflow Pipelines, or of a machine.
        run: which of its runs it was, where it counts them.
        images: the containers' images, as they were named to it.
    """

    id: str
    run: str = ""
    images: tuple[str, ...] = ()


def build(
    files: Mapping[str, str],
    evaluation: Mapping[str, Any],
    recipe: Mapping[str, Any],
    builder: Builder,
    *,
    started: datetime | None = None,
) -> Statement:
    """The statement on files that were made now.

    Args:
        files: name -> sha256.
        evaluation: the record of the artifact `evaluation` (`manifest.record_of`), whose chain holds all the others.
        recipe: what was asked for.
        builder: where.
        started: when that began; None: it is not known.
    """
    outside, made = resources(evaluation)
    return Statement(
        subject=[Subject(name=name, digest=Sha256(sha256=digest)) for name, digest in sorted(files.items())],
        predicate=Provenance(
            buildDefinition=BuildDefinition(
                externalParameters={"recipe": json.loads(json.dumps(recipe))},
                resolvedDependencies=[*outside, *map(_image, builder.images)],
            ),
            runDetails=RunDetails(
                builder=Maker(id=builder.id, version=_versions()),
                metadata=Metadata(
                    invocationId=builder.run or None,
                    startedOn=_moment(started) if started else None,
                    finishedOn=_moment(datetime.now(timezone.utc)),
                ),
                byproducts=made,
            ),
        ),
    )


def resources(evaluation: Mapping[str, Any]) -> tuple[list[Resource], list[Resource]]:
    """The artifacts behind an evaluation, each once: those that were read from outside, and those that were made."""
    records = {str(record["sha256"]): record for record in walk(evaluation)}.values()
    outside = [_resource(record) for record in records if not record.get("inputs")]
    return outside, [_resource(record) for record in records if record.get("inputs")]


def read(file: Path) -> Statement:
    """Read a statement that Resprout wrote.

    Raises:
        ArtifactError: there is none, a byte of it was changed, or it says what no statement of Resprout's says.
    """
    try:
        return parse(read_at_most(file, LARGEST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"there is no {file}",
            why="it lists each file's sha256, and of what they were made",
            now="it is written when a run has a result: run the recipe, again if that was with an older Resprout",
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{file} cannot be read: {error}", why="it is truncated or was edited", now="fetch it again"
        ) from None


def parse(content: bytes) -> Statement:
    """The statement that these bytes are.

    Raises:
        ValueError: they are none, or were changed.
    """
    try:
        fields = strict_json.parse(content)
        predicate = fields["predicate"]
        seal = predicate.pop(SEAL)
        if seal != _seal(fields):
            raise ValueError("it was changed after it was written")
        statement = Statement.model_validate(fields)
        if statement.to_bytes() != content or len(statement.files) != len(statement.subject):
            raise ValueError("it is not written as Resprout writes it")
        return statement
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))[:200]!a}: {first['msg']}") from None
    except (KeyError, TypeError, AttributeError):
        raise ValueError("it is no statement of Resprout's") from None


def _dump(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _seal(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dump(fields)).hexdigest()


def _resource(record: Mapping[str, Any]) -> Resource:
    """An artifact. Its digest is that of the bytes which were fetched, where its manifest knows that of a file."""
    about = record.get("about", {})
    source, fetched = _plain(about.get("source")), _plain(about.get("digest"))
    notes = {
        "artifact": _plain(record["sha256"]),
        "kind": _plain(record.get("kind")),
        "computed_on": _plain(record.get("computed_on")),
        "source": "" if _is_uri(source) else source,
        "resumed": " ".join(record.get("resumed", ())),
    }
    return Resource(
        name=_plain(record.get("name")),
        uri=source if _is_uri(source) else None,
        digest=Sha256(sha256=fetched or _plain(record["sha256"])),
        annotations={name: value for name, value in notes.items() if value},
    )


def _is_uri(source: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*://", source) is not None  # a claim begins with words


def _plain(value: Any) -> str:
    return "".join(letter for letter in str(value or "") if letter.isprintable())[:LONGEST_WORDS]


def _image(reference: str) -> Resource:
    name, _, digest = reference.partition("@sha256:")
    return Resource(name="image", uri=f"docker://{name}", digest=Sha256(sha256=digest) if digest else None)


def _versions() -> dict[str, str]:
    found = {"resprout": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _moment(time: datetime) -> str:
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def digests_below(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of every file that these files and folders hold, by its name below `folder`.

    Those of an artifact's files are what its manifest says, so that a large one is not read again only to be listed.
    """
    found: dict[str, str] = {}
    for path in (folder / name for name in names):
        if (path / MANIFEST).is_file():
            listed = {MANIFEST: sha256_of(path / MANIFEST), **read_manifest(path).files}
        elif path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
            listed = {file.relative_to(path).as_posix(): sha256_of(file) for file in below}
        else:
            listed = {"": sha256_of(path)} if path.is_file() else {}
        found |= {f"{path.name}/{name}".rstrip("/"): digest for name, digest in listed.items()}
    return found
