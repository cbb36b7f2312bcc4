"""An S3 server that ignores `If-None-Match` and knows no versions, as gateways of some years ago."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from resprout.storage import StorageSettings


class Gateway:
    """What it holds, and whom it was asked by."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.settings: StorageSettings


@contextmanager
def ignoring() -> Iterator[Gateway]:
    """A running one, with every bucket that anybody names."""
    gateway = Gateway()

    class Handler(_Handler):
        server_state = gateway

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        gateway.settings = StorageSettings(
            endpoint=f"http://127.0.0.1:{http.server_port}",
            access_key=SecretStr("key"),
            secret_key=SecretStr("secret"),
            session_token=SecretStr("token-of-a-session"),
            retries=0,
        )
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield gateway
        http.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: Gateway
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server_state.requests.append((f"{self.command} {self.path}", dict(self.headers.items())))
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        _, bucket, *rest = unquote(url.path).split("/", 2)
        key = rest[0] if rest else ""
        if "versions" in query:
            self._answer(501, _xml("Error", "<Code>NotImplemented</Code><Message>no versions</Message>"))
        elif not key:
            self._answer(200, self._listing(bucket, query.get("prefix", [""])[0]))
        elif "uploads" in query:
            self._answer(200, _xml("InitiateMultipartUploadResult", "<UploadId>1</UploadId>"))
        elif self.command == "PUT" and "uploadId" not in query:
            self.server_state.objects[key] = (body, self.headers.get("x-amz-meta-sha256", ""))
            self._answer(200, headers={"ETag": '"1"'})
        elif self.command in ("GET", "HEAD") and key in self.server_state.objects:
            content, digest = self.server_state.objects[key]
            self._answer(200, content, {"ETag": '"1"', **({"x-amz-meta-sha256": digest} if digest else {})})
        elif self.command in ("GET", "HEAD"):
            self._answer(404, _xml("Error", "<Code>NoSuchKey</Code><Message>none</Message>"))
        else:
            self._answer(200, headers={"ETag": '"1"'})

    def _listing(self, bucket: str, prefix: str) -> bytes:
        names = sorted(key for key in self.server_state.objects if key.startswith(prefix))
        return _xml(
            "ListBucketResult",
            f"<Name>{bucket}</Name><IsTruncated>false</IsTruncated>"
            + "".join(
                f"<Contents><Key>{key}</Key><ETag>1</ETag><Size>{len(self.server_state.objects[key][0])}</Size></Contents>"
                for key in names
            ),
        )

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        kind = {"Content-Type": "application/xml"} if body.startswith(b"<") else {}
        for name, value in {**kind, **(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.send_header("Last-Modified", "Sat, 28 Nov 2026 08:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _xml(name: str, inner: str) -> bytes:
    return f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{name}>'.encode()
