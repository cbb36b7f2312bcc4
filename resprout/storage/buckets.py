"""The buckets that Resprout needs, from a file that says what they are; for whoever runs the storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resprout.errors import StorageError
from resprout.storage.client import Storage


class Bucket(BaseModel):
    """One bucket: what it is called, what expires in it, who may do what.

    Args:
        expire_days: prefix -> days after which objects below it are removed; "" is all of the bucket.
        policy: an S3 bucket policy, which replaces any other; none leaves what is there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    expire_days: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    policy: dict[str, Any] | None = None


class Buckets(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    buckets: tuple[Bucket, ...] = Field(min_length=1)


def read(file: Path) -> tuple[Bucket, ...]:
    """The buckets that a file describes.

    Raises:
        StorageError: it cannot be read, or says something that makes no sense.
    """
    try:
        return Buckets.model_validate(yaml.safe_load(file.read_text())).buckets
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StorageError(f"cannot read {file}", why=str(error)) from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise StorageError(f"{file}: {where}: {problem['msg']}", now="docs/storage.md shows such a file") from None


def set_up(storage: Storage, buckets: tuple[Bucket, ...]) -> Iterator[str]:
    """Make what is missing and change what differs; a second time, nothing is left to do.

    Yields:
        What was done or found, a line for each bucket.

    Raises:
        StorageError: the server refuses it.
    """
    for bucket in buckets:
        done = ["made"] if storage.make_bucket(bucket.name) else []
        if storage.set_lifecycle(bucket.name, bucket.expire_days):
            done.append("lifecycle set")
        if bucket.policy is not None and storage.set_policy(bucket.name, bucket.policy):
            done.append("policy set")
        yield f"s3://{bucket.name}  {', '.join(done) or 'as it should be'}"
