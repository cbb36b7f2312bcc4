"""`resprout storage setup`, against a real server."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.embedded_storage import BUCKET, Server
from resprout.errors import StorageAwayError, StorageError
from resprout.storage import ObjectAddress, Storage, buckets, policies
from resprout.storage.buckets import Bucket

pytestmark = pytest.mark.usefixtures("storage_configured")


@pytest.fixture
def client(server: Server) -> Minio:
    access_key, secret_key, _ = server.settings.credentials()
    return Minio(server.settings.address, access_key, secret_key, secure=False)


def rules(client: Minio, bucket: str) -> dict[str, tuple[str | None, int | None]]:
    found = client.get_bucket_lifecycle(bucket)
    return {it.rule_id: (it.rule_filter.prefix, it.expiration.days) for it in found.rules} if found else {}


def set_up(storage: Storage, *wanted: Bucket) -> list[str]:
    return [line.split("  ")[1] for line in buckets.set_up(storage, wanted)]


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path, client: Minio):
    file = tmp_path / "buckets.yaml"
    file.write_text("""
buckets:
  - name: twice-models
    policy:
      Version: "2012-10-17"
      Statement:
        - {Effect: Deny, Principal: "*", Action: [s3:DeleteObject], Resource: ["arn:aws:s3:::twice-models/models/*"]}
  - name: twice-checkpoints
    expire_days: {"": 14, runs/: 3}
""")

    first, second = (CliRunner().invoke(app, ["storage", "setup", str(file)]) for _ in range(2))

    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr
    assert first.stdout.splitlines() == [
        "s3://twice-models  made, policy set",
        "s3://twice-checkpoints  made, lifecycle set",
    ]
    assert second.stdout.splitlines() == [
        "s3://twice-models  as it should be",
        "s3://twice-checkpoints  as it should be",
    ]
    assert set(rules(client, "twice-checkpoints").values()) == {("", 14), ("runs/", 3)}
    assert rules(client, "twice-models") == {}
    assert json.loads(client.get_bucket_policy("twice-models"))["Statement"][0]["Effect"] == "Deny"


def test_rules_of_others_stay(storage: Storage, client: Minio):
    assert set_up(storage, Bucket(name="shared", expire_days={"ours/": 14})) == ["made, lifecycle set"]
    theirs = Rule(ENABLED, rule_filter=Filter(prefix="theirs/"), rule_id="theirs", expiration=Expiration(days=90))
    client.set_bucket_lifecycle("shared", LifecycleConfig([*client.get_bucket_lifecycle("shared").rules, theirs]))

    assert set_up(storage, Bucket(name="shared", expire_days={"ours/": 7})) == ["lifecycle set"]
    assert set(rules(client, "shared").values()) == {("ours/", 7), ("theirs/", 90)}

    assert set_up(storage, Bucket(name="shared")) == ["lifecycle set"]
    assert set(rules(client, "shared").values()) == {("theirs/", 90)}


def test_the_last_rule_goes_too(storage: Storage, client: Minio):
    set_up(storage, Bucket(name="once-expired", expire_days={"": 1}))

    assert set_up(storage, Bucket(name="once-expired")) == ["lifecycle set"]
    assert rules(client, "once-expired") == {}


def test_a_bucket_that_is_there_keeps_what_is_in_it(storage: Storage, client: Minio, tmp_path: Path):
    client.fput_object(BUCKET, "tests/kept", __file__)

    assert set_up(storage, Bucket(name=BUCKET)) == ["as it should be"]
    assert client.stat_object(BUCKET, "tests/kept").size == Path(__file__).stat().st_size


def test_a_policy_that_someone_changed_is_put_right(storage: Storage, client: Minio):
    def policy(effect: str) -> dict[str, object]:
        resource = "arn:aws:s3:::guarded/models/*"
        statement = {"Effect": effect, "Principal": "*", "Action": "s3:DeleteObject", "Resource": resource}
        return {"Version": "2012-10-17", "Statement": [statement]}

    set_up(storage, Bucket(name="guarded", policy=policy("Deny")))
    client.set_bucket_policy("guarded", json.dumps(policy("Allow")))

    assert set_up(storage, Bucket(name="guarded", policy=policy("Deny"))) == ["policy set"]
    assert set_up(storage, Bucket(name="guarded")) == ["as it should be"], "none given: left alone"
    assert json.loads(client.get_bucket_policy("guarded"))["Statement"][0]["Effect"] == "Deny"


def test_a_bucket_into_which_nothing_can_be_written_is_no_success(full: Server):
    impatient = Storage(full.settings, sleep=lambda seconds: None)

    with pytest.raises(StorageAwayError, match="cannot write s3://third/") as caught:
        set_up(impatient, Bucket(name=BUCKET), Bucket(name="third"))

    assert "has no room for it" in caught.value.why
    assert "SeaweedFS" in caught.value.now


def test_a_bucket_is_left_as_empty_as_it_was_found(storage: Storage):
    set_up(storage, Bucket(name="left-empty"))

    assert list(storage.list(ObjectAddress("left-empty", ""))) == []


def test_what_is_to_stay_is_kept_in_every_version(storage: Storage, client: Minio):
    kept = Bucket(name="kept", keep_days=7, abort_days=3)

    assert set_up(storage, kept) == ["made, versions kept for 7 days, lifecycle set"]
    assert set_up(storage, kept) == ["as it should be"]
    assert list(storage.list(ObjectAddress("kept", ""))) == []
    first = client.put_object("kept", "a", io.BytesIO(b"first"), 5).version_id
    client.put_object("kept", "a", io.BytesIO(b"later"), 5)
    with pytest.raises(S3Error, match="Access Denied"):
        client.remove_object("kept", "a", version_id=first)
    assert storage.read(storage.firsts(ObjectAddress("kept", ""))["a"], 5) == b"first"
    (rule,) = client.get_bucket_lifecycle("kept").rules
    assert rule.abort_incomplete_multipart_upload.days_after_initiation == 3


def test_a_bucket_that_is_there_keeps_from_now_on_what_is_in_it(storage: Storage, client: Minio):
    client.make_bucket("from-before")
    client.put_object("from-before", "a", io.BytesIO(b"first"), 5)

    told = set_up(storage, Bucket(name="from-before", keep_days=7))
    client.put_object("from-before", "a", io.BytesIO(b"later"), 5)

    assert told == ["versioning set, versions kept for 7 days"]
    assert set_up(storage, Bucket(name="from-before", keep_days=8)) == ["versions kept for 8 days"]
    assert set_up(storage, Bucket(name="from-before")) == ["as it should be"], "none given: left alone"
    assert storage.read(storage.firsts(ObjectAddress("from-before", ""))["a"], 5) == b"first"


AS_GIVEN: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "Stay",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:DeleteObject",
            "Resource": "arn:aws:s3:::b/m/*",
        },
        {
            "Effect": "Allow",
            "Principal": {"AWS": ["arn:aws:iam::1:user/a", "arn:aws:iam::1:user/b"]},
            "Action": ["s3:PutObject", "s3:GetObject"],
            "Resource": "arn:aws:s3:::b/*",
            "Condition": {"Bool": {"aws:SecureTransport": True}},
        },
    ],
}
AS_MINIO_GIVES_IT_BACK: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": ["arn:aws:iam::1:user/b", "arn:aws:iam::1:user/a"]},
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": ["arn:aws:s3:::b/*"],
            "Condition": {"Bool": {"aws:SecureTransport": ["true"]}},
        },
        {
            "Effect": "Deny",
            "Principal": {"AWS": ["*"]},
            "Action": ["s3:DeleteObject"],
            "Resource": ["arn:aws:s3:::b/m/*"],
        },
    ],
}


def test_a_policy_in_another_form_is_the_same_policy():
    assert policies.same(AS_GIVEN, AS_MINIO_GIVES_IT_BACK)
    assert policies.same(
        {**AS_GIVEN, "Statement": AS_GIVEN["Statement"][0]}, {**AS_GIVEN, "Statement": AS_GIVEN["Statement"][:1]}
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Effect", "Allow"),
        ("Principal", {"AWS": ["arn:aws:iam::1:user/a"]}),
        ("Action", ["s3:DeleteObject", "s3:PutObject"]),
        ("Resource", ["arn:aws:s3:::b/*"]),
        ("Condition", {"Bool": {"aws:SecureTransport": ["false"]}}),
    ],
)
def test_a_policy_that_says_something_else_is_another(field: str, value: object):
    allow, deny = AS_MINIO_GIVES_IT_BACK["Statement"]
    changed = {**AS_MINIO_GIVES_IT_BACK, "Statement": [allow, {**deny, field: value}]}

    assert not policies.same(AS_GIVEN, changed)
    assert not policies.same(AS_GIVEN, {**AS_MINIO_GIVES_IT_BACK, "Statement": [allow, allow, deny]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("buckets: []", "buckets"),
        ("buckets: [{name: Models}]", "buckets.0.name"),
        ("buckets: [{name: models, expire_days: {'': 0}}]", "buckets.0.expire_days"),
        ("buckets: [{name: models, expires: 3}]", "buckets.0.expires"),
        ("buckets: [", "cannot read"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, said: str):
    (tmp_path / "buckets.yaml").write_text(text)
    with pytest.raises(StorageError, match=said):
        buckets.read(tmp_path / "buckets.yaml")


def test_a_file_that_is_not_there_is_no_traceback(tmp_path: Path):
    done = CliRunner().invoke(app, ["storage", "setup", str(tmp_path / "none.yaml")])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: cannot read ")
