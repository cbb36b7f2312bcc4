"""Where object storage is, and as whom to ask: from the environment or secret files, never from arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from resprout.errors import StorageError


def _variables(name: str, *others: str) -> AliasChoices:
    return AliasChoices(f"RESPROUT_STORAGE_{name}", *others)


class StorageSettings(BaseSettings):
    """How to reach an S3 server; each field by our environment variable, or by the one that S3 tools share.

    `StorageSettings()` reads the environment, which the rest of the core does not: components and the command line make
    it, and hand it on.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    endpoint: str = Field(validation_alias=_variables("ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    """http:// or https://, a host, a port where it is not the scheme's."""
    region: str = Field(default="us-east-1", validation_alias=_variables("REGION", "AWS_REGION", "AWS_DEFAULT_REGION"))
    """What requests are signed for; servers of one's own mostly take any."""
    access_key: SecretStr | None = Field(default=None, validation_alias=_variables("ACCESS_KEY", "AWS_ACCESS_KEY_ID"))
    secret_key: SecretStr | None = Field(
        default=None, validation_alias=_variables("SECRET_KEY", "AWS_SECRET_ACCESS_KEY")
    )
    session_token: SecretStr | None = Field(
        default=None, validation_alias=_variables("SESSION_TOKEN", "AWS_SESSION_TOKEN")
    )
    """Of temporary credentials."""
    secrets: Path | None = Field(default=None, validation_alias=_variables("SECRETS"))
    """A folder with the files `accesskey` and `secretkey`, and where needed `sessiontoken`, `endpoint`, `region` and
    `ca.crt`, as Kubernetes mounts a secret; used where a variable says nothing."""
    publishing_secrets: Path | None = Field(default=None, validation_alias=_variables("PUBLISHING_SECRETS"))
    """Such a folder, of the user that publishes; none: it is the same user."""
    publishing_access_key: SecretStr | None = Field(default=None, validation_alias=_variables("PUBLISHING_ACCESS_KEY"))
    publishing_secret_key: SecretStr | None = Field(default=None, validation_alias=_variables("PUBLISHING_SECRET_KEY"))
    publishing_session_token: SecretStr | None = Field(
        default=None, validation_alias=_variables("PUBLISHING_SESSION_TOKEN")
    )
    """That user's keys where no folder is, in the containers of a local run."""
    ca_file: Path | None = Field(default=None, validation_alias=_variables("CA_FILE", "AWS_CA_BUNDLE"))
    """Certificates to trust, PEM; none: the usual authorities."""
    socket: Path | None = Field(default=None, validation_alias=_variables("SOCKET"))
    """A Unix socket through which every connection goes (`resprout.tunnel`), where there is no network; set for the
    containers of a local run."""
    path_style: bool | None = Field(default=None, validation_alias=_variables("PATH_STYLE"))
    """https://host/bucket (true) or https://bucket.host (false); none: the latter for AWS alone."""
    retries: int = Field(default=10, ge=0, validation_alias=_variables("RETRIES"))
    """How often a request that may succeed later is tried again, after twice the last pause, at most 10 seconds."""
    timeout_seconds: float = Field(default=60.0, gt=0, validation_alias=_variables("TIMEOUT_SECONDS"))
    """How long a server may stay silent."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_from_files(cls, fields: dict[str, Any]) -> dict[str, Any]:
        folder = next((Path(fields[name]) for name in _names(cls, "secrets") if fields.get(name)), None)
        given = {name for name in _IN_FILES if any(fields.get(known) for known in _names(cls, name))}
        found = _read_files(folder) if folder else {}
        return {**fields, **{name: value for name, value in found.items() if name not in given}}

    @field_validator("endpoint")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must start with http:// or https:// and name a host")
        if url.username or url.password:
            raise ValueError("must not hold credentials: they would end up in logs")
        if url.path.strip("/") or url.query or url.fragment:
            raise ValueError("must end after host and port: buckets belong into s3:// addresses")
        return f"{url.scheme}://{url.netloc}"

    @field_validator("ca_file")
    @classmethod
    def _is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is not a file")
        return value

    def for_publishing(self) -> StorageSettings:
        """The settings of the user that publishes: where one is named, nothing else says what its keys are."""
        if self.publishing_access_key is not None:
            keys = {name: getattr(self, f"publishing_{name}") for name in _KEYS}
            return self.model_copy(update={**keys, **_NO_OTHER_USER})
        if self.publishing_secrets is None:
            return self
        found = {**_read_files(self.publishing_secrets), **dict.fromkeys(_KEYS), "secrets": self.publishing_secrets}
        return self.model_copy(update={**_NO_OTHER_USER, **found})

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.endpoint.startswith("https://")

    @property
    def address(self) -> str:
        """Host and port."""
        return urlsplit(self.endpoint).netloc

    def credentials(self) -> tuple[str, str, str | None]:
        """Access key, secret key and session token.

        Raises:
            StorageError: some are missing.
        """
        access_key = self._secret(self.access_key, "accesskey")
        secret_key = self._secret(self.secret_key, "secretkey")
        if not access_key or not secret_key:
            missing = " and ".join(
                name for name, value in (("access key", access_key), ("secret key", secret_key)) if not value
            )
            raise StorageError(
                f"no {missing} for object storage at {self.endpoint}",
                now="set RESPROUT_STORAGE_ACCESS_KEY and RESPROUT_STORAGE_SECRET_KEY, or let RESPROUT_STORAGE_SECRETS "
                "name a folder with the files accesskey and secretkey",
            )
        return access_key, secret_key, self._secret(self.session_token, "sessiontoken")

    def _secret(self, value: SecretStr | None, file: str) -> str | None:
        if value is not None:
            return value.get_secret_value()
        path = self.secrets / file if self.secrets else None
        return path.read_text().strip() if path and path.is_file() else None


_KEYS = ("access_key", "secret_key", "session_token")
_NO_OTHER_USER = dict.fromkeys(("publishing_secrets", *(f"publishing_{name}" for name in _KEYS)))
_IN_FILES = {"endpoint": "endpoint", "region": "region", "ca_file": "ca.crt"}
"""What else than keys a folder of secrets may hold, and in which file."""


def _read_files(folder: Path) -> dict[str, str | Path]:
    there = {name: folder / file for name, file in _IN_FILES.items() if (folder / file).is_file()}
    return {name: path if name == "ca_file" else path.read_text().strip() for name, path in there.items()}


def _names(settings: type[BaseSettings], field: str) -> list[str]:
    """What a field may be called."""
    alias = settings.model_fields[field].validation_alias
    return [field, *(str(name) for name in (alias.choices if isinstance(alias, AliasChoices) else ()))]


def variables(settings: StorageSettings) -> dict[str, str]:
    """Settings as the variables from which `StorageSettings()` reads them, credentials included.

    Raises:
        StorageError: credentials are missing.
    """
    known = settings.model_dump(exclude={"secrets", *_KEYS, *_NO_OTHER_USER}, exclude_none=True)
    keys = dict(zip(_KEYS, settings.credentials(), strict=True))
    if (publishing := settings.for_publishing()) is not settings:
        keys |= dict(zip((f"publishing_{name}" for name in _KEYS), publishing.credentials(), strict=True))
    given = {**known, **{name: key for name, key in keys.items() if key is not None}}
    return {f"RESPROUT_STORAGE_{name.upper()}": str(value) for name, value in given.items()}


def from_environment() -> StorageSettings | None:
    """The settings that the environment gives, or None where it names no endpoint.

    Raises:
        StorageError: they make no sense; the message names the variable and never shows a secret.
    """
    try:
        return StorageSettings()  # type: ignore[call-arg]
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        if any(problem["type"] == "missing" for problem in problems):  # the endpoint: no other field is required
            return None
        variable, message = problems[0]["loc"][0], problems[0]["msg"].removeprefix("Value error, ")
        raise StorageError(
            f"object storage: {variable}: {message}", now="docs/storage.md explains every variable"
        ) from None


def required() -> StorageSettings:
    """The settings that the environment gives.

    Raises:
        StorageError: there are none, or they make no sense.
    """
    settings = from_environment()
    if settings is None:
        raise StorageError(
            "no object storage is configured",
            now="set RESPROUT_STORAGE_ENDPOINT, and the access and secret key; docs/storage.md explains every variable",
        )
    return settings
