"""Downloads over https: to a temporary file, never to a parser, and without leaking credentials."""

from __future__ import annotations

import base64
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from resprout.errors import ArtifactError
from resprout.progress import Progress, Report, silent
from resprout.urls import without_secrets

BLOCK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
MAX_BYTES = 1 << 34
"""16 GiB: four thousand million weights in float32, more than any image classifier has."""
SLOWEST = 1 << 16
"""Bytes a second, on average: a network of 100 MB takes half an hour then. A server may send one a minute for ever."""
GRACE_SECONDS = 300.0
"""Until the first byte, and what a download may lose to pauses."""


class _OnlyHTTPS(HTTPRedirectHandler):
    def redirect_request(
        self, request: Request, response: Any, code: int, message: str, headers: Any, target: str
    ) -> Request | None:
        if urlsplit(target).scheme != "https":
            response.close()
            raise _failed(request.full_url, "it redirects to plain http")
        return super().redirect_request(request, response, code, message, headers, target)


class _Connection(HTTPSConnection):
    """One whose answer begins soon: each byte of its head may come after almost the whole time-out."""

    def getresponse(self) -> HTTPResponse:
        late = threading.Timer(GRACE_SECONDS, self.sock.shutdown, [socket.SHUT_RDWR])
        late.daemon = True
        late.start()
        try:
            return super().getresponse()
        finally:
            late.cancel()


class _Connections(HTTPSHandler):
    def https_open(self, request: Request) -> Any:
        return self.do_open(_Connection, request)


@contextmanager
def downloaded(url: str, *, report: Report = silent) -> Iterator[Path]:
    """Download an https URL to a temporary file, which is gone when the block ends.

    A user and password in the URL are sent as basic authentication, to that host alone. Progress is reported
    in bytes; where the server does not say how many there are, the total is what has arrived.

    Raises:
        ArtifactError: the server cannot be reached, refuses, redirects to plain http, ends early, sends too much or too
            slowly.
    """
    with tempfile.TemporaryDirectory(prefix="resprout-") as folder:
        path = Path(folder) / "download"
        try:
            _stream(url, path, report)
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()
            raise _failed(url, str(error) or type(error).__name__) from None
        yield path


def _stream(url: str, path: Path, report: Report) -> None:
    began = time.monotonic()
    opener = build_opener(_Connections, _OnlyHTTPS)
    with opener.open(_request(url), timeout=TIMEOUT) as response, path.open("wb") as file:
        total, done = int(response.headers.get("Content-Length") or 0), 0
        while block := response.read1(BLOCK):  # read() waits for a whole block, a byte a minute
            file.write(block)
            done += len(block)
            if max(total, done) > MAX_BYTES:
                raise HTTPException(f"it is larger than {MAX_BYTES >> 30} GiB, which no image classifier is")
            if time.monotonic() - began > GRACE_SECONDS + done / SLOWEST:
                raise HTTPException(f"{done:,} bytes in {time.monotonic() - began:.0f} s are too slow to ever end")
            report(Progress("teacher", done, max(total, done), "bytes"))
        if done < total:
            raise HTTPException(f"it ended after {done} of {total} bytes")


def _request(url: str) -> Request:
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    request = Request(urlunsplit((parts.scheme, host, parts.path, parts.query, "")))  # noqa: S310  https alone gets here
    if credentials:
        token = base64.b64encode(unquote(credentials).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _failed(url: str, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{without_secrets(url)} cannot be downloaded: {reason}",
        now="check the address and this machine's network, or download it by hand and give the file",
    )
