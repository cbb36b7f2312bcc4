"""A file to an S3 server: in one request, or in parts of which a reader sees nothing until the last is there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import urllib3

if TYPE_CHECKING:
    from resprout.storage.client import ObjectAddress

PART_BYTES = 8 * 2**20
PARALLEL_PARTS = 4
ONCE = {"If-None-Match": "*"}
"""The condition under which nothing is overwritten; the server refuses with HTTP 412."""

TransferWatch = Callable[[int, int], None]
"""Is told how many bytes of how many have gone through."""


class Request(Protocol):
    """Makes a request: method, address, query, body, headers."""

    def __call__(
        self,
        method: str,
        address: ObjectAddress,
        query: Mapping[str, str],
        body: bytes | None,
        headers: Mapping[str, str],
        /,
    ) -> urllib3.BaseHTTPResponse: ...


def put(
    request: Request,
    address: ObjectAddress,
    file: Path,
    headers: Mapping[str, str],
    watch: TransferWatch,
    condition: Mapping[str, str],
) -> None:
    """Store a file.

    Args:
        request: makes the requests.
        address: where.
        file: what.
        headers: of the object.
        watch: is told how far it is.
        condition: more headers, of the request that makes the object.
    """
    size = file.stat().st_size
    if size <= PART_BYTES:
        request("PUT", address, {}, file.read_bytes(), {**headers, **condition})
        watch(size, size)
        return
    upload = {"uploadId": upload_id(request("POST", address, {"uploads": ""}, None, headers))}
    try:
        tags = _send_parts(request, address, file, upload, watch)
        request("POST", address, upload, _listed(tags), {"Content-Type": "application/xml", **condition})
    except Exception:
        with suppress(Exception):  # what a bucket's rule removes later, where this fails too
            request("DELETE", address, upload, None, {})
        raise


def upload_id(answer: urllib3.BaseHTTPResponse) -> str:
    """What the server calls an upload that it was asked to begin.

    Raises:
        ValueError: it does not say.
    """
    found = re.search(rb"<UploadId>([^<]+)</UploadId>", answer.data)
    if found is None:
        raise ValueError("the server begins no upload, and does not say why")
    return found[1].decode()


def _send_parts(
    request: Request, address: ObjectAddress, file: Path, upload: Mapping[str, str], watch: TransferWatch
) -> list[str]:
    size = file.stat().st_size
    starts = range(0, size, PART_BYTES)

    def send(number: int) -> str:
        part = os.pread(stream.fileno(), PART_BYTES, starts[number])
        answer = request("PUT", address, {"partNumber": str(number + 1), **upload}, part, {})
        return str(answer.headers["ETag"])

    tags: list[str] = []
    with file.open("rb") as stream, ThreadPoolExecutor(PARALLEL_PARTS) as pool:
        for number, tag in enumerate(pool.map(send, range(len(starts)))):
            tags.append(tag)
            watch(min(size, (number + 1) * PART_BYTES), size)
    return tags


def _listed(tags: list[str]) -> bytes:
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>" for number, tag in enumerate(tags, 1)
    )
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
