"""The buckets that Resprout needs, from a file that says what they are; for whoever runs the storage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.xml import marshal
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resprout.errors import StorageError
from resprout.storage import policies
from resprout.storage.client import Storage
from resprout.storage.failures import translated
from resprout.storage.trial import TRIAL_NAME, round_trip

OUR_RULES = "resprout-"
"""How the names of the lifecycle rules begin that are ours to change."""


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
    """Make what is missing and change what differs; a second time, nothing is left to do. Then try each bucket.

    Yields:
        What was done or found, a line for each bucket into which an object could be written, and read from there.

    Raises:
        StorageAwayError: there is no room in one.
        StorageError: the server refuses it.
    """
    for bucket in buckets:
        done = ["made"] if make_bucket(storage, bucket.name) else []
        if set_lifecycle(storage, bucket.name, bucket.expire_days):
            done.append("lifecycle set")
        if bucket.policy is not None and set_policy(storage, bucket.name, bucket.policy):
            done.append("policy set")
        if not round_trip(storage, bucket.name):
            done.append(f"{TRIAL_NAME} stays, as nothing may be removed")
        yield f"s3://{bucket.name}  {', '.join(done) or 'as it should be'}"


def make_bucket(storage: Storage, bucket: str) -> bool:
    """Make a bucket unless there is one.

    Returns:
        Whether this call made it.
    """
    with translated(f"cannot make s3://{bucket}", storage.endpoint):
        if storage.sdk.bucket_exists(bucket):
            return False
        try:
            storage.sdk.make_bucket(bucket)
        except S3Error as error:
            if error.code != "BucketAlreadyOwnedByYou":  # another who did the same at once
                raise
            return False
    return True


def set_lifecycle(storage: Storage, bucket: str, expire_days: Mapping[str, int]) -> bool:
    """Let objects of a bucket expire. Rules whose names do not begin with `resprout-` stay as they are.

    Args:
        storage: the server.
        bucket: its name.
        expire_days: prefix -> days after which what lies below it is removed.

    Returns:
        Whether anything had to be changed.
    """
    with translated(f"cannot set the lifecycle of s3://{bucket}", storage.endpoint):
        found = storage.sdk.get_bucket_lifecycle(bucket)
        before: Sequence[Rule] = found.rules if found else ()
        others = [rule for rule in before if not (rule.rule_id or "").startswith(OUR_RULES)]
        wanted = [*others, *map(_expiry, expire_days.items())]
        if _as_set(before) == _as_set(wanted):
            return False
        if wanted:
            storage.sdk.set_bucket_lifecycle(bucket, LifecycleConfig(wanted))
        else:
            storage.sdk.delete_bucket_lifecycle(bucket)
    return True


def set_policy(storage: Storage, bucket: str, policy: Mapping[str, Any]) -> bool:
    """Give a bucket this policy in place of any other.

    Returns:
        Whether it had another one.
    """
    with translated(f"cannot set the policy of s3://{bucket}", storage.endpoint):
        try:
            found = json.loads(storage.sdk.get_bucket_policy(bucket))
        except S3Error as error:
            if error.code != "NoSuchBucketPolicy":
                raise
            found = None
        if found is not None and policies.same(found, policy):
            return False
        storage.sdk.set_bucket_policy(bucket, json.dumps(policy))
    return True


def _expiry(after: tuple[str, int]) -> Rule:
    prefix, days = after
    name = f"{OUR_RULES}expire-{prefix.strip('/').replace('/', '-')}".rstrip("-")
    return Rule(ENABLED, rule_filter=Filter(prefix=prefix), rule_id=name, expiration=Expiration(days=days))


def _as_set(rules: Sequence[Rule]) -> set[bytes]:
    return {marshal(LifecycleConfig([rule])) for rule in rules}
