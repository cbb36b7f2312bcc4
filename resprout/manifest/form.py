"""The form of an artifact's `manifest.json`, and how it is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, ValidationInfo, field_validator

from resprout import __version__

MANIFEST = "manifest.json"
SEAL = "manifest_sha256"
SCHEMA_VERSION = 1
FILES = 100  # what an artifact is made of at most; ours hold a handful
CHECKPOINTS = 100_000  # one for each group of dreams

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# one level of plain names: one that another folder, case or form of letters could stand for is no name
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]{1,100}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\p{C}]*$", max_length=1000)]


class _Strict(BaseModel):
    # fields of exactly these types: what a manifest of ours holds, and nothing else
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WrittenBy(BaseModel):
    """Who wrote a manifest, which is asked before anything else of it: other versions have other fields."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    schema_version: int
    resprout_version: Word


class Record(_Strict):
    """An artifact as the manifests of those say that were made from it."""

    name: Word
    kind: Word
    sha256: Sha256
    inputs: list[Record]
    section: dict[str, Any]
    seed: int | None
    about: dict[str, Any]
    computed_on: Line = ""
    resumed: list[Sha256] = []


class Manifest(_Strict):
    """What an artifact is, how it was made, and of what.

    Args:
        kind: `teacher`, `statistics`, …
        section: the recipe section that made it.
        seed: the run's, where randomness was involved.
        inputs: a record of each artifact that it was made from.
        files: name -> sha256 of each file in its folder.
        about: what loading needs.
        computed_on: the kind of device, where that decides its bits.
        resumed: the sha256 of each checkpoint whose state went into it.
        schema_version, resprout_version: of whoever wrote it.
    """

    kind: Word
    section: dict[str, Any] = {}
    seed: int | None = None
    inputs: list[Mapping[str, Any]] = []
    files: dict[FileName, Sha256] = {}
    about: dict[str, Any] = {}
    computed_on: Line = ""
    resumed: list[Sha256] = []
    schema_version: int = SCHEMA_VERSION
    resprout_version: Word = __version__

    @field_validator("inputs", "files", "resumed", mode="before")
    @classmethod
    def _bounded(cls, found: Any, info: ValidationInfo) -> Any:
        # before each of them is judged: pydantic words every fault, which takes seconds and hundreds of bytes
        most = CHECKPOINTS if info.field_name == "resumed" else FILES
        if isinstance(found, list | dict) and len(found) > most:
            raise ValueError(f"there are {len(found):,}, and at most {most:,} can be")
        return found

    @field_validator("inputs")
    @classmethod
    def _of_records(cls, inputs: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        for record in inputs:
            Record.model_validate(record)
        return inputs

    @field_validator("files")
    @classmethod
    def _of_one_name_each(cls, files: dict[str, str]) -> dict[str, str]:
        folded = {name.casefold() for name in files}
        if len(folded) < len(files) or MANIFEST in folded:
            raise ValueError("on some disks, two of the names are one, or one is the manifest's own")
        return files

    def to_json(self) -> str:
        """The manifest as it is written: sorted, with a digest of itself that shows a careless edit."""
        fields = json.loads(json.dumps(self.__dict__))
        for name in ("computed_on", "resumed"):  # as from before they were recorded
            if not fields[name]:
                del fields[name]
        return dump({**fields, SEAL: seal(fields)})


def first_problem(error: ValidationError) -> str:
    """What is wrong with a manifest, in a line of printable characters."""
    if error.error_count() > FILES:
        return f"{error.error_count():,} of its fields are missing, unknown or of another type"
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(ascii(str(part))[1:-1][:60] for part in found["loc"][:8])
    what = found["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def dump(fields: Mapping[str, Any]) -> str:
    """Fields as a manifest has them."""
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def seal(fields: Mapping[str, Any]) -> str:
    """The digest of a manifest's other fields that it holds itself."""
    return hashlib.sha256(dump(fields).encode()).hexdigest()
