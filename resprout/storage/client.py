"""Files to and from an S3 server: whole or not at all, their sha256 checked at both ends."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import certifi
import urllib3
from minio import Minio
from minio.error import S3Error
from tenacity import retry_if_exception_type

from resprout.errors import StorageError
from resprout.files import sha256_of, write_atomically
from resprout.storage import tunnelled
from resprout.storage.failures import is_there_already, translated
from resprout.storage.parts import ONCE, PARALLEL_PARTS, PART_BYTES, TransferWatch, put
from resprout.storage.patience import Patience, PatientPool
from resprout.storage.settings import StorageSettings

PARALLEL_FILES = 8
DIGEST_HEADER = "x-amz-meta-sha256"
_JSON = {"Content-Type": "application/json"}


def _unwatched(done: int, total: int) -> None:
    return None


@dataclass(frozen=True)
class ObjectAddress:
    """An object, or the common beginning of several: s3://bucket/key."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> ObjectAddress:
        """An address as people write it.

        Raises:
            StorageError: it is none.
        """
        bucket, _, key = text.removeprefix("s3://").partition("/")
        if not text.startswith("s3://") or not bucket:
            raise StorageError(f"{text!r} is no address in object storage", now="write it as s3://BUCKET/KEY")
        return cls(bucket, key.strip("/"))

    def __truediv__(self, name: str) -> ObjectAddress:
        return ObjectAddress(self.bucket, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class ObjectFacts:
    """What a server says of an object; `sha256` is there if we stored it, or whoever did left the digest with it.

    `version` is which of those that were stored under its name, where that was asked for.
    """

    address: ObjectAddress
    size: int
    etag: str
    sha256: str | None
    version: str | None = None


class Storage:
    """An S3 server. Every failure is a `StorageError`; what may succeed later has been tried again before that."""

    def __init__(
        self,
        settings: StorageSettings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = settings.endpoint
        self._settings = settings
        self._patience = Patience(settings.endpoint, settings.retries, sleep=sleep, clock=clock)
        access_key, secret_key, session_token = settings.credentials()
        self._http = PatientPool(
            self._patience,
            maxsize=max(PARALLEL_PARTS, PARALLEL_FILES),
            timeout=urllib3.Timeout(connect=min(10.0, settings.timeout_seconds), read=settings.timeout_seconds),
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(settings.ca_file or certifi.where()),
        )
        if settings.socket:
            self._http.pool_classes_by_scheme = tunnelled.pools(settings.socket)
        self._client = Minio(
            settings.address,
            access_key,
            secret_key,
            session_token,
            secure=settings.secure,
            region=settings.region,
            http_client=self._http,
        )
        if settings.path_style is True:
            self._client.disable_virtual_style_endpoint()
        elif settings.path_style is False:
            self._client.enable_virtual_style_endpoint()

    @property
    def sdk(self) -> Minio:
        """The SDK's client, for what only whoever runs the server does; what it raises is to be translated."""
        return self._client

    def hasty(self) -> Storage:
        """The same server, each request made once and given up after five seconds of silence."""
        seconds = min(5.0, self._settings.timeout_seconds)
        return Storage(self._settings.model_copy(update={"retries": 0, "timeout_seconds": seconds}))

    def check(self, bucket: str) -> None:
        """Fail now rather than after hours of work.

        Raises:
            StorageError: the server cannot be reached, refuses these credentials, or has no such bucket.
        """
        # a listing, since the answer to a HEAD request has no body that would say why it was refused
        with translated(f"cannot use s3://{bucket}", self.endpoint):
            next(self._client.list_objects(bucket), None)

    def facts(self, address: ObjectAddress) -> ObjectFacts | None:
        """What the server knows of an object; None where there is none."""
        with translated(f"cannot look at {address}", self.endpoint):
            try:
                found = self._client.stat_object(address.bucket, address.key)
            except S3Error as error:
                if error.code == "NoSuchKey":
                    return None
                self.check(address.bucket)
                raise
        headers = {name.lower(): value for name, value in (found.metadata or {}).items()}
        return ObjectFacts(address, int(found.size or 0), found.etag or "", headers.get(DIGEST_HEADER))

    def firsts(self, address: ObjectAddress) -> dict[str, ObjectFacts]:
        """What was stored first under each name below an address.

        In a bucket that keeps versions this stays the same, whoever overwrites or removes an object; in another it is
        what lies there now.

        Returns:
            Key -> object, with its version.
        """
        found: dict[str, ObjectFacts] = {}
        try:
            with translated(f"cannot list the versions of what lies below {address}", self.endpoint):
                prefix = f"{address.key}/" if address.key else ""
                for item in self._client.list_objects(address.bucket, prefix, recursive=True, include_version=True):
                    if not item.is_delete_marker:  # of each name, the newest come first
                        key, size = item.object_name or "", int(item.size or 0)
                        place = ObjectAddress(address.bucket, key)
                        found[key] = ObjectFacts(place, size, item.etag or "", None, item.version_id)
        except StorageError as error:
            if not isinstance(error.__cause__, S3Error) or error.__cause__.code != "NotImplemented":
                raise
            return {each.address.key: each for each in self.list(address)}  # a server that keeps none
        return found

    def file(self, address: ObjectAddress) -> ObjectFacts | None:
        """What `facts` knows of an object that is a file; None where there is none, or a folder of that name."""
        found = self.facts(address) if address.key else None
        # some programs mark a folder by an empty object of its name
        is_marker = found is not None and not found.size and next(self.list(address), None) is not None
        return None if is_marker else found

    def list(self, address: ObjectAddress) -> Iterator[ObjectFacts]:
        """Every object below an address, in the order of their keys; their digests are not asked for.

        Objects that mark a folder are passed over: a console's `folder/`, Hadoop's empty `folder_$folder$`.
        """
        prefix = f"{address.key}/" if address.key else ""
        with translated(f"cannot list {address}", self.endpoint):
            for item in self._client.list_objects(address.bucket, prefix, recursive=True):
                key, size = item.object_name or "", int(item.size or 0)
                if not (key.endswith("/") or (key.endswith("_$folder$") and not size)):
                    yield ObjectFacts(ObjectAddress(address.bucket, key), size, item.etag or "", None)

    def remove(self, address: ObjectAddress) -> None:
        """Remove one object; none there is no failure."""
        with translated(f"cannot remove {address}", self.endpoint):
            self._client.remove_object(address.bucket, address.key)

    def upload(
        self, file: Path, address: ObjectAddress, watch: TransferWatch = _unwatched, *, once: bool = False
    ) -> str:
        """Store a file, in parts where it is large. A reader finds the whole of it, or what was there before.

        Args:
            file: what to store.
            address: where.
            watch: is told how far it is.
            once: overwrite nothing; that the very same file is there already is as good.

        Returns:
            Its sha256, which is stored with it.

        Raises:
            StorageError: it is refused, or something else is there that would be overwritten.
        """
        digest, size = sha256_of(file), file.stat().st_size
        # the body goes before the answer: where it is large and there already, it is not sent again
        if once and size > PART_BYTES and self.facts(address) is not None:
            stored = False
        else:
            stored = self._put(file, address, digest, watch, once=once)
        self._confirm(address, size, digest, stored=stored)
        return digest

    def _put(self, file: Path, address: ObjectAddress, digest: str, watch: TransferWatch, *, once: bool) -> bool:
        headers = {"Content-Type": "application/octet-stream", DIGEST_HEADER: digest}
        with translated(f"cannot write {address}", self.endpoint, writing=True):
            try:
                put(self._request, address, file, headers, watch, ONCE if once else {})
            except S3Error as error:
                if once and is_there_already(error):
                    return False
                # the answer to the last request was lost, and its repetition found the upload finished
                if error.code != "NoSuchUpload":
                    raise
        return True

    def upload_folder(self, folder: Path, address: ObjectAddress, *, once: bool = False) -> None:
        """Store every file of a folder below an address, under its name; what else lies there stays."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())

        def store(file: Path) -> None:
            self.upload(file, address / file.relative_to(folder).as_posix(), once=once)

        with ThreadPoolExecutor(PARALLEL_FILES) as pool:
            list(pool.map(store, files))

    def _confirm(self, address: ObjectAddress, size: int, digest: str, *, stored: bool) -> None:
        found = self.facts(address)
        if found is not None and (found.size, found.sha256) == (size, digest):
            return
        if found is not None and not stored:
            raise StorageError(
                f"{address} holds something else", why="nothing is overwritten", now="give another address"
            )
        raise StorageError(
            f"cannot write {address}",
            why=f"{self.endpoint} took {size:,} bytes and now has {found.size if found else 0:,}, or another's",
            now="run the same again; if it stays, look at the server",
        )

    def claim(self, address: ObjectAddress, content: bytes) -> bool:
        """Store a small object unless there is one; of several who try at once, one succeeds.

        Returns:
            Whether this call stored it.
        """
        with translated(f"cannot write {address}", self.endpoint, writing=True):
            try:
                self._request("PUT", address, {}, content, {**ONCE, **_JSON})
            except S3Error as error:
                if is_there_already(error):
                    return False
                raise
        return True

    def send(
        self, method: str, address: ObjectAddress, query: Mapping[str, str], *, body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Make a request that the SDK has no method for.

        Args:
            query: of the address, as S3's API names it.
        """
        with translated(f"cannot write {address}", self.endpoint, writing=True):
            return self._request(method, address, query, body, {})

    def _request(
        self,
        method: str,
        address: ObjectAddress,
        query: Mapping[str, str],
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> urllib3.BaseHTTPResponse:
        # what the SDK's own methods call: no public one takes headers and signs them, and a signature in the address
        # would be in a proxy's log
        return self._client._execute(
            method, address.bucket, address.key, body=body, headers={**headers}, query_params={**query}
        )

    def read(self, found: ObjectFacts, most: int) -> bytes:
        """An object's bytes.

        Args:
            found: the object, as `facts` or `firsts` found it.
            most: how many bytes it may have.

        Raises:
            StorageError: it is larger, or not what was stored.
        """
        if found.size > most:
            raise StorageError(
                f"{found.address} is {found.size:,} bytes long",
                why=f"what Resprout writes under that name has at most {most:,}",
                now="it was not written by Resprout",
            )
        with TemporaryDirectory(prefix="resprout-") as folder:
            file = Path(folder) / "object"
            self.fetch(found, file)
            return file.read_bytes()

    def download(
        self, address: ObjectAddress, file: Path, *, sha256: str | None = None, watch: TransferWatch = _unwatched
    ) -> str:
        """Fetch an object into a file, in parts at a time where it is large. The file appears whole or not at all.

        Args:
            sha256: what the bytes must be; default: what was stored with them.

        Returns:
            Their sha256.

        Raises:
            StorageError: there is no such object, or its bytes are not those that were stored.
        """
        found = self.facts(address)
        if found is None:
            raise StorageError(
                f"cannot read {address}",
                why=f"there is no such object ({self.endpoint})",
                now="check the address; `resprout models ls` lists what was published",
            )
        return self.fetch(found, file, sha256=sha256, watch=watch)

    def fetch(
        self, found: ObjectFacts, file: Path, *, sha256: str | None = None, watch: TransferWatch = _unwatched
    ) -> str:
        """`download` of what was found already, which may be a version that was overwritten since."""
        with write_atomically(file) as unfinished:
            digest, expected = self._fetch(found, unfinished, watch), sha256 or found.sha256
            if expected and digest != expected:
                raise StorageError(
                    f"{found.address} is not what was stored",
                    why=f"its sha256 is {digest}, and should be {expected}",
                    now="publish it again; if it was changed on purpose, give it a new version",
                )
        return digest

    def nothing_at(self, address: ObjectAddress) -> StorageError:
        """The error where neither an object nor a folder is."""
        return StorageError(
            f"cannot read {address}",
            why=f"there is neither an object of that name nor one below it ({self.endpoint})",
            now="check the address; `resprout models ls` lists what was published",
        )

    def _fetch(self, found: ObjectFacts, file: Path, watch: TransferWatch) -> str:
        done, digest = 0, hashlib.sha256()
        with file.open("w+b") as stream, ThreadPoolExecutor(PARALLEL_PARTS) as pool:
            stream.truncate(found.size)
            starts = range(0, found.size, PART_BYTES)
            for count in pool.map(lambda start: self._fetch_part(found, start, stream.fileno()), starts):
                digest.update(os.pread(stream.fileno(), count, done))  # while the next parts come
                done += count
                watch(done, found.size)
        return digest.hexdigest()

    def _fetch_part(self, found: ObjectFacts, start: int, file: int) -> int:
        """Fetch up to PART_BYTES from `start` and write them there; a connection that breaks is tried again."""
        length = min(PART_BYTES, found.size - start)
        broken = retry_if_exception_type((urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError))
        with translated(f"cannot read {found.address}", self.endpoint):
            self._patience.insist(f"reading {found.address}", lambda: self._copy(found, start, length, file), broken)
        return length

    def _copy(self, found: ObjectFacts, start: int, length: int, file: int) -> None:
        address = found.address
        answer = self._client.get_object(
            address.bucket,
            address.key,
            start,
            length,
            request_headers={"If-Match": f'"{found.etag.strip(chr(34))}"'},
            version_id=found.version,
        )
        try:
            position = start
            for block in answer.stream(2**20):
                position += os.pwrite(file, block, position)
        finally:
            answer.close()
            answer.release_conn()
        if position - start != length:
            raise urllib3.exceptions.ProtocolError(f"{position - start:,} of {length:,} bytes came")
