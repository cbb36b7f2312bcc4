"""Small JSON objects of ours that lie beside others' bytes, read as if anybody had written them."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from resprout import strict_json
from resprout.errors import StorageError
from resprout.storage.client import ObjectAddress

_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f]"


def _inside(name: str) -> str:
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ValueError("must lie below its folder")
    return name


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, Field(max_length=1024, pattern=rf"^{_PRINTABLE}+$")]
FileName = Annotated[Label, AfterValidator(_inside)]
"""What an object is called below a folder, with slashes."""
Name = Annotated[FileName, Field(max_length=255, pattern=r"^[^/]+$")]
"""One part of it."""


class Record(BaseModel):
    """What such an object holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def to_json(self) -> bytes:
        """The bytes as they are stored."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True).encode()


R = TypeVar("R", bound=Record)


def parse(kind: type[R], content: bytes, address: ObjectAddress) -> R:
    """A record from an object's bytes.

    Raises:
        StorageError: they are no JSON, or not such a record.
    """
    try:
        return kind.model_validate(strict_json.parse(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))[:80]!a}: {first['msg'][:200]}"
    except ValueError as error:
        problem = str(error)[:200]
    raise StorageError(f"{address} cannot be read: {problem}", now="it was not written by Resprout, or changed since")
