"""Where Kubeflow Pipelines is, and as whom to ask: from options, the environment, or the pod that this is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from resprout.errors import ClusterError

IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
# where a pod finds a token that Kubeflow Pipelines accepts, if it is projected into it
IN_CLUSTER_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")


def _variables(name: str, *others: str) -> AliasChoices:
    return AliasChoices(f"RESPROUT_KFP_{name}", *others)


class ClusterSettings(BaseSettings):
    """How to reach the API of Kubeflow Pipelines; each field by our environment variable, or by the KFP SDK's."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    host: str = Field(validation_alias=_variables("HOST", "KF_PIPELINES_ENDPOINT"))
    """http:// or https://, a host, a port where it is not the scheme's, and the path below which KFP is served."""
    namespace: str | None = Field(default=None, validation_alias=_variables("NAMESPACE"))
    """The profile that runs belong to, where one KFP serves several."""
    token: SecretStr | None = Field(default=None, validation_alias=_variables("TOKEN"))
    token_file: Path | None = Field(
        default=None, validation_alias=_variables("TOKEN_FILE", "KF_PIPELINES_SA_TOKEN_PATH")
    )
    """A file that holds the token; it is read again for each request, since Kubernetes renews what it mounts."""
    ca_file: Path | None = Field(default=None, validation_alias=_variables("CA_FILE"))
    """Certificates to trust, PEM; none: the usual authorities."""
    ui: str | None = Field(default=None, validation_alias=_variables("UI", "KF_PIPELINES_UI_ENDPOINT"))
    """Where people open KFP, if that is elsewhere than the API."""

    @field_validator("host", "ui")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must start with http:// or https:// and name a host")
        if url.username or url.password:
            raise ValueError("must not hold credentials: they would end up in logs")
        return value.split("#")[0].rstrip("/")

    @field_validator("ca_file", "token_file")
    @classmethod
    def _is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is not a file")
        return value

    @property
    def has_token(self) -> bool:
        """Whether there is a token to show."""
        return self.token is not None or self.token_file is not None

    def current_token(self) -> str | None:
        """The token as it is now."""
        if self.token is not None:
            return self.token.get_secret_value().strip()
        return self.token_file.read_text().strip() if self.token_file else None

    def link(self, run_id: str) -> str | None:
        """Where a person sees a run; None where nobody said where the UI is."""
        if self.ui is None and self.host == IN_CLUSTER_HOST:
            return None
        return f"{self.ui or self.host}/#/runs/details/{run_id}"


def cluster_settings(
    *,
    host: str | None = None,
    namespace: str | None = None,
    token_file: Path | None = None,
    ca_file: Path | None = None,
    ui: str | None = None,
    is_file: Callable[[Path], bool] = Path.is_file,
) -> ClusterSettings:
    """Options first, then the environment, then what a pod of the cluster finds by itself.

    Args:
        host, namespace, token_file, ca_file, ui: as `ClusterSettings` has them; None: not given.
        is_file: whether a file is there.

    Raises:
        ClusterError: nothing says where KFP is, or what is said makes no sense; no secret is shown.
    """
    given = {"host": host, "namespace": namespace, "token_file": token_file, "ca_file": ca_file, "ui": ui}
    try:
        settings = ClusterSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if problem["type"] != "missing":
            message = problem["msg"].removeprefix("Value error, ")
            raise ClusterError(f"Kubeflow Pipelines: {problem['loc'][0]}: {message}") from None
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise ClusterError(
                "nothing says where Kubeflow Pipelines is",
                now="give --host, or set RESPROUT_KFP_HOST: the address that you open its pages at. Where only the "
                "cluster reaches it: kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80, then "
                "--host http://localhost:8080",
            ) from None
        return cluster_settings(
            host=IN_CLUSTER_HOST, namespace=namespace, token_file=token_file, ca_file=ca_file, ui=ui, is_file=is_file
        )
    if token_file is not None:
        return settings.model_copy(update={"token": None})
    if not settings.has_token and is_file(IN_CLUSTER_TOKEN):
        return settings.model_copy(update={"token_file": IN_CLUSTER_TOKEN})
    return settings
