"""What went wrong between us and Kubeflow Pipelines: whether to ask again, and what to tell a person."""

from __future__ import annotations

import json
import re

from kfp_server_api import ApiException
from urllib3 import exceptions as http

from pipeline.cluster.settings import ClusterSettings
from resprout.errors import ClusterError

# a proxy or the API server itself while it restarts; KFP says 500 while its database does
_LATER = {429, 500, 502, 503, 504}
_TOO_LARGE = re.compile("request is too large|message larger than max")  # etcd's words, and its client's


def may_succeed_later(error: BaseException, settings: ClusterSettings) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, ApiException):
        if _TOO_LARGE.search(message_of(error)):
            return False
        # a token in a file is about to be renewed; one in the environment stays as it is
        return error.status in _LATER or (error.status == 401 and settings.token is None and settings.has_token)
    if isinstance(error, http.HTTPError):
        return not isinstance(_reason(error), http.SSLError | http.NameResolutionError)
    return isinstance(error, OSError)


def explained(action: str, error: BaseException, settings: ClusterSettings) -> ClusterError:
    """What a person is told of a request that failed.

    Args:
        action: what was tried, as in "cannot create the run".
        error: what the client raised.
        settings: whom it was tried with.
    """
    host = settings.host
    if isinstance(error, ApiException):
        return _refused(action, error, settings)
    reason = _reason(error)
    if isinstance(reason, http.SSLError):
        return ClusterError(action, **_not_trusted(host, str(reason)))
    if isinstance(reason, http.NameResolutionError):
        return ClusterError(action, why=f"the name in {host} is not known here", now="check --host, RESPROUT_KFP_HOST")
    return ClusterError(
        action,
        why=f"{host} does not answer: {str(reason).rpartition(': ')[2] or reason!r}",
        now="check that Kubeflow Pipelines runs and can be reached from here, then run the same again",
    )


def _refused(action: str, error: ApiException, settings: ClusterSettings) -> ClusterError:
    host, said = settings.host, message_of(error)
    if error.status == 401 or error.status in (301, 302, 303, 307, 308):
        shown = "the token is not accepted, or has run out" if settings.has_token else "it wants a token, and has none"
        return ClusterError(
            action,
            why=f"{host} asks who you are (HTTP {error.status}): {shown}",
            now="let RESPROUT_KFP_TOKEN hold a token, or RESPROUT_KFP_TOKEN_FILE name a file with one; docs/ci.md says "
            "how to get one",
        )
    if error.status == 403:
        return ClusterError(
            action,
            why=f"{host} knows you and does not allow it (HTTP 403): {said}",
            now="check --namespace; ask whoever runs the cluster to let you create runs there",
        )
    if error.status == 404:
        return ClusterError(action, why=f"{host} knows no such thing (HTTP 404): {said}", now="check what you named")
    if _TOO_LARGE.search(said):
        return ClusterError(
            action,
            why="it has grown too large for Kubernetes to be written back (1.5 MB, uncompressed)",
            now="resprout submit makes a new run; stages whose inputs are the same are not computed again",
        )
    if error.status in _LATER:
        return ClusterError(
            action,
            why=f"{host} keeps failing (HTTP {error.status}): {said}",
            now="look at Kubeflow Pipelines' ml-pipeline pod, then run the same again",
        )
    return ClusterError(action, why=f"{host} refuses (HTTP {error.status}): {said}")


def message_of(error: ApiException) -> str:
    """What the server said, in one line."""
    try:
        fields = json.loads(error.body)
        text = fields.get("message") or fields.get("error") or error.body
    except (TypeError, ValueError, AttributeError):
        text = error.body if isinstance(error.body, str) and not error.body.lstrip().startswith("<") else error.reason
    return " ".join(str(text).split())[:400]


def _not_trusted(host: str, text: str) -> dict[str, str]:
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return {
            "why": f"{host} does not speak TLS",
            "now": "if that is as it should be, let the host start with http://",
        }
    return {
        "why": f"the certificate of {host} is not trusted: {text}",
        "now": "let --ca-file, or RESPROUT_KFP_CA_FILE, name the authority's certificate (PEM)",
    }


def _reason(error: BaseException) -> BaseException:
    reason = getattr(error, "reason", None)
    return reason if isinstance(error, http.MaxRetryError) and isinstance(reason, BaseException) else error
