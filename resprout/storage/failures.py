"""What went wrong between us and an S3 server, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3 import exceptions as http

from resprout.errors import StorageAwayError, StorageError
from resprout.storage.patience import FLEETING_STATUS

# S3 code -> what it means, what to do
_REFUSALS = {
    "NoSuchBucket": ("the bucket does not exist", "create it, or check the name"),
    "NoSuchKey": ("there is no such object", "check the address; `resprout models ls` lists what was published"),
    "AccessDenied": (
        "these credentials may not do that",
        "ask whoever runs the storage to allow reading and writing under this prefix",
    ),
    "InvalidAccessKeyId": ("the server does not know this access key", "check RESPROUT_STORAGE_ACCESS_KEY"),
    "SignatureDoesNotMatch": (
        "the secret key is wrong, or a proxy changes requests",
        "check RESPROUT_STORAGE_SECRET_KEY, for a line break at its end too",
    ),
    "RequestTimeTooSkewed": ("this machine's clock and the server's differ by more than 15 minutes", "set the clock"),
    "ExpiredToken": ("the session token has run out", "get new temporary credentials"),
    "InvalidBucketName": ("this cannot be a bucket's name", "3 to 63 of: a-z, 0-9, dot, hyphen"),
    "PermanentRedirect": ("the bucket lies in another region", "set RESPROUT_STORAGE_REGION"),
    "AuthorizationHeaderMalformed": ("the request was signed for another region", "set RESPROUT_STORAGE_REGION"),
}

_NO_ROOM = (
    "SeaweedFS makes only so many volumes, up to 7 for one bucket: start it with -volume.max=100, or let `weed shell` "
    "free some (docs/storage.md, No room). Others: look at their disks"
)


@contextmanager
def translated(action: str, endpoint: str, *, writing: bool = False) -> Iterator[None]:
    """Turn what the SDK and its HTTP library raise into a StorageError.

    Args:
        action: what was tried, as in "cannot read s3://bucket/key".
        endpoint: whom it was tried with.
        writing: whether it needed room.

    Raises:
        StorageAwayError: the server does not answer, or fails: later it may succeed.
        StorageError: it refuses.
    """
    try:
        yield
    except (S3Error, InvalidResponseError, ServerError) as error:
        status = _status(error)
        if status in FLEETING_STATUS:
            raise StorageAwayError(action, **_failing(error, status, endpoint, writing=writing)) from error
        if isinstance(error, S3Error):
            why, now = _REFUSALS.get(error.code or "", (f"the server said {error.code}: {error.message}", ""))
            raise StorageError(action, why=f"{why} ({error.code}, {endpoint})", now=now) from error
        raise StorageError(
            action,
            why=f"{endpoint} answers, but not as an S3 server does: {error}"[:300],
            now="check RESPROUT_STORAGE_ENDPOINT: it is the S3 API's address, not the web console's",
        ) from error
    except ValueError as error:  # a bucket's or an object's name that cannot be one
        raise StorageError(action, why=str(error)) from error
    except http.HTTPError as error:
        reason = error.reason if isinstance(error, http.MaxRetryError) and error.reason else error
        kind = StorageError if isinstance(reason, http.SSLError) else StorageAwayError
        raise kind(action, **_unreachable(reason, endpoint)) from error


def is_there_already(error: S3Error) -> bool:
    """Whether a request to store something unless it is there was refused because it is, or another's is under way."""
    return error.response.status in (409, 412)


def _status(error: S3Error | InvalidResponseError | ServerError) -> int:
    """The HTTP status that an error of the SDK stands for."""
    if isinstance(error, S3Error):
        return error.response.status
    return error.status_code if isinstance(error, ServerError) else error._code


def _failing(error: Exception, status: int, endpoint: str, *, writing: bool) -> dict[str, str]:
    code = f", {error.code}" if isinstance(error, S3Error) else ""
    if writing and status not in (429, 502, 504):
        return {"why": f"{endpoint} has no room for it, or fails inside (HTTP {status}{code})", "now": _NO_ROOM}
    return {
        "why": f"{endpoint} kept failing (HTTP {status}{code})",
        "now": "look at the server, then run the same again",
    }


def _unreachable(reason: Exception, endpoint: str) -> dict[str, str]:
    text = str(reason)
    if isinstance(reason, http.SSLError):
        if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
            return {
                "why": f"{endpoint} does not speak TLS",
                "now": "if that is as it should be, let RESPROUT_STORAGE_ENDPOINT start with http://",
            }
        return {
            "why": f"the certificate of {endpoint} is not trusted: {text}",
            "now": "let RESPROUT_STORAGE_CA_FILE name the authority's certificate (PEM)",
        }
    if isinstance(reason, http.NameResolutionError):
        return {"why": f"the name in {endpoint} is not known here", "now": "check RESPROUT_STORAGE_ENDPOINT"}
    return {
        "why": f"{endpoint} does not answer: {text}",
        "now": "check that it runs and can be reached from here, then run the same again",
    }
