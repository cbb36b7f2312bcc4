"""The buckets that Resprout needs, from a file that says what they are; for whoever runs the storage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from minio.commonconfig import ENABLED, GOVERNANCE, Filter
from minio.error import S3Error
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, Expiration, LifecycleConfig, Rule
from minio.objectlockconfig import DAYS, ObjectLockConfig
from minio.versioningconfig import VersioningConfig
from minio.xml import marshal
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resprout.errors import StorageError
from resprout.storage import policies
from resprout.storage.client import ObjectAddress, Storage
from resprout.storage.failures import translated
from resprout.storage.trial import try_writing

OUR_RULES = "resprout-"
"""How the names of the lifecycle rules begin that are ours to change."""
_LACKING = ("NotImplemented", "MethodNotAllowed", "InvalidBucketState", "InvalidArgument", "MalformedXML")
"""What servers answer that do not know versions, Object Lock or such a rule, or not for a bucket that was made so."""

Days = Annotated[int, Field(ge=1, le=36_500)]


class Bucket(BaseModel):
    """One bucket: what it is called, what expires in it, what stays in it, who may do what.

    Args:
        expire_days: prefix -> days after which objects below it are removed; "" is all of the bucket.
        abort_days: after how many days the parts of an upload that never ended are removed.
        keep_days: for how many days each version of an object is kept from everyone who may not bypass the bucket's
            governance: versioning and Object Lock. None leaves what is there.
        policy: an S3 bucket policy, which replaces any other; none leaves what is there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    expire_days: dict[str, Days] = Field(default_factory=dict)
    abort_days: Days | None = None
    keep_days: Days | None = None
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
        What was done or found, a line for each bucket that a little could be written to.

    Raises:
        StorageAwayError: there is no room in one.
        StorageError: the server refuses it.
    """
    for bucket in buckets:
        done = ["made"] if make_bucket(storage, bucket.name, locked=bucket.keep_days is not None) else []
        if bucket.keep_days is not None:
            done += set_keeping(storage, bucket.name, bucket.keep_days)
        done += set_lifecycle(storage, bucket.name, bucket.expire_days, bucket.abort_days)
        if bucket.policy is not None and set_policy(storage, bucket.name, bucket.policy):
            done.append("policy set")
        try_writing(storage, ObjectAddress(bucket.name, ""))
        yield f"s3://{bucket.name}  {', '.join(done) or 'as it should be'}"


def make_bucket(storage: Storage, bucket: str, *, locked: bool = False) -> bool:
    """Make a bucket unless there is one.

    Args:
        storage: the server.
        bucket: its name.
        locked: whether it is made for Object Lock, which some servers allow only then.

    Returns:
        Whether this call made it.
    """
    with translated(f"cannot make s3://{bucket}", storage.endpoint):
        if storage.sdk.bucket_exists(bucket):
            return False
        try:
            storage.sdk.make_bucket(bucket, object_lock=locked)
        except S3Error as error:
            if error.code != "BucketAlreadyOwnedByYou":  # another who did the same at once
                raise
            return False
    return True


def set_keeping(storage: Storage, bucket: str, days: int) -> list[str]:
    """Let a bucket keep every version of its objects, and let nobody remove one for some days.

    Returns:
        What had to be changed, and what the server has not got.
    """
    done = []
    with translated(f"cannot let s3://{bucket} keep versions", storage.endpoint):
        try:
            if storage.sdk.get_bucket_versioning(bucket).status != ENABLED:
                storage.sdk.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
                done.append("versioning set")
        except S3Error as error:
            return [_lacking(error, "versions: what is there can be overwritten")]
        try:
            if _kept_days(storage, bucket) != days:
                storage.sdk.set_object_lock_config(bucket, ObjectLockConfig(GOVERNANCE, days, DAYS))
                done.append(f"versions kept for {days:,} days")
        except S3Error as error:
            done.append(_lacking(error, "Object Lock: a version can be removed by who may remove it"))
    return done


def _lacking(error: S3Error, what: str) -> str:
    """What to say of a server, or a bucket, that has no such thing; any other error is raised again."""
    if error.code not in _LACKING:
        raise error
    return f"NO {what} ({error.code}: {error.message})"


def _kept_days(storage: Storage, bucket: str) -> int | None:
    try:
        found = storage.sdk.get_object_lock_config(bucket)
    except S3Error as error:
        if error.code != "ObjectLockConfigurationNotFoundError":
            raise
        return None
    return int(found.duration or 0) if (found.mode, found.duration_unit) == (GOVERNANCE, DAYS) else None


def set_lifecycle(
    storage: Storage, bucket: str, expire_days: Mapping[str, int], abort_days: int | None = None
) -> list[str]:
    """Let objects of a bucket expire. Rules whose names do not begin with `resprout-` stay as they are.

    Args:
        storage: the server.
        bucket: its name.
        expire_days: prefix -> days after which what lies below it is removed.
        abort_days: after how many days the parts of an upload that never ended are removed.

    Returns:
        What had to be changed, and what the server has not got.
    """
    expiring = list(map(_expiry, expire_days.items()))
    with translated(f"cannot set the lifecycle of s3://{bucket}", storage.endpoint):
        if abort_days is None:
            return _set_rules(storage, bucket, expiring)
        try:
            return _set_rules(storage, bucket, [*expiring, _abort(abort_days)])
        except S3Error as error:
            lacking = _lacking(error, "abort_days: what is left of an upload stays as long as the server keeps it")
            return [*_set_rules(storage, bucket, expiring), lacking]


def _set_rules(storage: Storage, bucket: str, ours: Sequence[Rule]) -> list[str]:
    found = storage.sdk.get_bucket_lifecycle(bucket)
    before: Sequence[Rule] = found.rules if found else ()
    wanted = [*(rule for rule in before if not (rule.rule_id or "").startswith(OUR_RULES)), *ours]
    if _as_set(before) == _as_set(wanted):
        return []
    if wanted:
        storage.sdk.set_bucket_lifecycle(bucket, LifecycleConfig(wanted))
    else:
        storage.sdk.delete_bucket_lifecycle(bucket)
    return ["lifecycle set"]


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


def _abort(days: int) -> Rule:
    return Rule(
        ENABLED,
        rule_filter=Filter(prefix=""),
        rule_id=f"{OUR_RULES}abort",
        abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(days),
    )


def _as_set(rules: Sequence[Rule]) -> set[bytes]:
    return {marshal(LifecycleConfig([rule])) for rule in rules}
