from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from resprout.errors import StorageError
from resprout.storage import StorageSettings, from_environment, required, variables


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "RESPROUT_")):
            monkeypatch.delenv(name)


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> StorageSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = from_environment()
    assert found is not None
    return found


def test_without_an_endpoint_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    assert from_environment() is None


def test_our_variables_come_before_the_common_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        AWS_ENDPOINT_URL="https://common.example",
        AWS_ACCESS_KEY_ID="common",
        AWS_SECRET_ACCESS_KEY="common-secret",
        AWS_SESSION_TOKEN="token",
        AWS_REGION="eu-central-1",
        RESPROUT_STORAGE_ENDPOINT="http://ours.example:9000/",
        RESPROUT_STORAGE_ACCESS_KEY="ours",
    )
    assert (found.endpoint, found.address, found.secure) == ("http://ours.example:9000", "ours.example:9000", False)
    assert found.credentials() == ("ours", "common-secret", "token")
    assert found.region == "eu-central-1"


def test_credentials_are_read_from_a_mounted_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "accesskey").write_text("key\n")
    (tmp_path / "secretkey").write_text("secret\n")
    found = settings(
        monkeypatch, RESPROUT_STORAGE_ENDPOINT="https://s3.example", RESPROUT_STORAGE_SECRETS=str(tmp_path)
    )
    assert found.credentials() == ("key", "secret", None)


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, RESPROUT_STORAGE_ENDPOINT="https://s3.example", RESPROUT_STORAGE_ACCESS_KEY="key")
    with pytest.raises(StorageError, match=r"no secret key for object storage at https://s3\.example"):
        found.credentials()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        RESPROUT_STORAGE_ENDPOINT="https://s3.example",
        RESPROUT_STORAGE_ACCESS_KEY="key-9f3",
        RESPROUT_STORAGE_SECRET_KEY="secret-9f3",
    )
    assert "9f3" not in f"{found!r} {found} {found.model_dump()}"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RESPROUT_STORAGE_ENDPOINT", "s3.example", "must start with http"),
        ("RESPROUT_STORAGE_ENDPOINT", "https://me:hidden@s3.example", "must not hold credentials"),
        ("RESPROUT_STORAGE_ENDPOINT", "https://s3.example/bucket", "buckets belong into s3://"),
        ("RESPROUT_STORAGE_CA_FILE", "/nowhere/ca.pem", "is not a file"),
        ("RESPROUT_STORAGE_PATH_STYLE", "hidden", "RESPROUT_STORAGE_PATH_STYLE"),
        ("RESPROUT_STORAGE_RETRIES", "-1", "RESPROUT_STORAGE_RETRIES"),
    ],
)
def test_nonsense_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv("RESPROUT_STORAGE_ENDPOINT", "https://s3.example")
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError, match=message) as caught:
        from_environment()
    assert "hidden" not in str(caught.value)


def test_everything_may_come_from_the_files_of_a_mounted_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = {
        "endpoint": "https://minio.example.org:9000\n",
        "region": "eu-1\n",
        "accesskey": "key\n",
        "secretkey": "s3cret\n",
        "ca.crt": "-----BEGIN CERTIFICATE-----\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("RESPROUT_STORAGE_SECRETS", str(tmp_path))

    read = required()

    assert (read.endpoint, read.region) == ("https://minio.example.org:9000", "eu-1")
    assert read.credentials() == ("key", "s3cret", None)
    assert read.ca_file == tmp_path / "ca.crt"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other:1")
    assert required().endpoint == "http://other:1"


def test_what_a_stage_is_told_is_read_back_as_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    authority = tmp_path / "authority.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    given = StorageSettings(
        endpoint="https://minio.example.org:9000",
        region="eu-1",
        access_key=SecretStr("key"),
        secret_key=SecretStr("s3cret"),
        session_token=SecretStr("token"),
        ca_file=authority,
        socket=tmp_path / "door",
        path_style=False,
        retries=3,
        timeout_seconds=1.5,
    )
    for name, value in variables(given).items():
        monkeypatch.setenv(name, value)

    assert required() == given


def test_a_folder_without_an_endpoint_configures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RESPROUT_STORAGE_SECRETS", str(tmp_path / "not-mounted"))

    assert from_environment() is None
