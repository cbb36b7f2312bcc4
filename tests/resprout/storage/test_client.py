from __future__ import annotations

import hashlib
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import minio.time
import pytest
import trustme
from minio import Minio
from pydantic import SecretStr

from pipeline.embedded_storage import BUCKET, Server
from resprout import storage as storages
from resprout.errors import StorageError
from resprout.storage import ObjectAddress, ObjectFacts, Storage, StorageSettings, folders
from resprout.storage.client import DIGEST_HEADER
from resprout.storage.parts import PART_BYTES


def random_file(path: Path, size: int) -> Path:
    generator, left = hashlib.shake_128(path.name.encode()), size
    block = generator.digest(min(left, 2**20))
    with path.open("wb") as file:
        while left > 0:
            file.write(block[:left])
            left -= len(block)
    return path


def unwatched(done: int, total: int) -> None:
    return None


def raw_client(server: Server) -> Minio:
    access_key, secret_key, _ = server.settings.credentials()
    return Minio(server.settings.address, access_key, secret_key, secure=False)


def changed(server: Server, **fields: object) -> StorageSettings:
    """The server's settings with others in their place, and no patience."""
    return server.settings.model_copy(update={"retries": 0, "timeout_seconds": 5.0, **fields})


@pytest.mark.parametrize("size", [0, 1, 5 * 2**20, PART_BYTES, 2 * PART_BYTES + 7])
def test_a_file_comes_back_as_it_was(storage: Storage, place: ObjectAddress, tmp_path: Path, size: int) -> None:
    source = random_file(tmp_path / "source", size)
    sent: list[int] = []
    digest = storage.upload(source, place / "file", lambda done, total: sent.append(done))
    received: list[int] = []
    fetched = storage.download(place / "file", tmp_path / "copy", watch=lambda done, total: received.append(done))
    assert digest == fetched == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert (max(sent, default=0), max(received, default=0)) == (size, size)
    assert received == sorted(received)
    facts = storage.facts(place / "file")
    assert facts is not None
    assert (facts.size, facts.sha256) == (size, digest)


def test_objects_are_listed_and_removed(storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
    file = random_file(tmp_path / "file", 10)
    for name in ("a", "b/c", "bd"):
        storage.upload(file, place / name)
    assert [str(found.address) for found in storage.list(place)] == [str(place / name) for name in ("a", "b/c", "bd")]
    assert [found.address for found in storage.list(place / "b")] == [place / "b" / "c"], "bd is no part of b/"
    storage.remove(place / "a")
    storage.remove(place / "a")
    assert storage.facts(place / "a") is None


@pytest.mark.usefixtures("storage_configured")
def test_what_only_marks_a_folder_is_no_object_of_it(storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
    storage.upload(random_file(tmp_path / "file", 10), place / "set" / "cat" / "a.png")
    before = storages.identity(str(place / "set"))
    for marker in ("set/", "set/cat/", "set/dog/", "set/cat_$folder$"):
        storage.sdk.put_object(place.bucket, f"{place.key}/{marker}", BytesIO(b""), 0)

    fetched = folders.fetch(storage, place / "set", tmp_path / "to", unwatched)

    assert [path.relative_to(fetched) for path in fetched.rglob("*")] == [Path("cat"), Path("cat/a.png")]
    assert storages.identity(str(place / "set")) == before
    with pytest.raises(StorageError, match="nor one below it"):
        folders.fetch(storage, place / "set" / "dog", tmp_path / "to", unwatched)


def test_an_empty_object_with_others_below_it_is_their_folder(
    storage: Storage, place: ObjectAddress, tmp_path: Path
) -> None:
    listed = iter([ObjectFacts(place / "set" / "a", 1, "etag", None)])

    class Marked(Storage):  # the server at hand keeps no object beside a folder of its name; others do
        def facts(self, address: ObjectAddress) -> ObjectFacts | None:
            return ObjectFacts(address, 0, "etag", None)

        def list(self, address: ObjectAddress) -> Iterator[ObjectFacts]:
            return listed

    marked = Marked(storage._settings)
    assert marked.file(place / "set") is None
    assert marked.file(place / "set") is not None, "an empty object alone is a file"


def test_a_bucket_alone_is_a_folder(own_server: Server, tmp_path: Path) -> None:
    storage = Storage(own_server.settings)
    storage.upload(random_file(tmp_path / "file", 10), ObjectAddress(BUCKET, "set/cat/a.png"))
    for address in (f"s3://{BUCKET}", f"s3://{BUCKET}/"):
        fetched = folders.fetch(storage, ObjectAddress.parse(address), tmp_path / "to", unwatched)
        assert (fetched / "set" / "cat" / "a.png").read_bytes() == (tmp_path / "file").read_bytes()


def test_an_object_that_was_cut_is_not_taken(
    server: Server, storage: Storage, place: ObjectAddress, tmp_path: Path
) -> None:
    source = random_file(tmp_path / "source", 1000)
    digest = storage.upload(source, place / "file")
    raw_client(server).put_object(
        place.bucket, (place / "file").key, BytesIO(source.read_bytes()[:900]), 900, metadata={DIGEST_HEADER: digest}
    )
    with pytest.raises(StorageError, match="is not what was stored") as caught:
        storage.download(place / "file", tmp_path / "copy")
    assert digest in caught.value.why
    assert [path.name for path in tmp_path.iterdir()] == ["source"], "neither a file nor half of one"


def test_an_object_of_others_is_checked_against_the_digest_one_knows(
    server: Server, storage: Storage, place: ObjectAddress, tmp_path: Path
) -> None:
    raw_client(server).put_object(place.bucket, (place / "file").key, BytesIO(b"theirs"), 6)
    assert storage.download(place / "file", tmp_path / "copy") == hashlib.sha256(b"theirs").hexdigest()
    with pytest.raises(StorageError, match="is not what was stored"):
        storage.download(place / "file", tmp_path / "other", sha256=hashlib.sha256(b"ours").hexdigest())


def test_of_many_claims_one_succeeds(storage: Storage, place: ObjectAddress) -> None:
    barrier, won = threading.Barrier(8), []

    def claim(number: int) -> None:
        barrier.wait()
        won.append(storage.claim(place / "claim", str(number).encode()))

    threads = [threading.Thread(target=claim, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_a_transfer_is_waited_for(own_server: Server, tmp_path: Path) -> None:
    storage, address = Storage(own_server.settings), ObjectAddress(BUCKET, "large")
    source = random_file(tmp_path / "source", 200 * 2**20)
    restarts: list[Future[None]] = []

    def restart() -> None:
        time.sleep(1)
        own_server.start()

    # one thread for the whole test: the server ends with the thread that started it
    with ThreadPoolExecutor(1) as pool:

        def kill_halfway(done: int, total: int) -> None:
            if done > total / 2 and not restarts:
                own_server.stop(signal.SIGKILL)
                restarts.append(pool.submit(restart))

        digest = storage.upload(source, address, kill_halfway)
        restarts.pop().result()
        assert storage.download(address, tmp_path / "copy", watch=kill_halfway) == digest
        restarts.pop().result()
    assert {path.name for path in tmp_path.iterdir()} == {"own", "source", "copy"}


class TestRefusals:
    """Each says what it was, and what to do."""

    def test_a_wrong_secret_key(self, server: Server) -> None:
        with pytest.raises(StorageError, match="secret key is wrong") as caught:
            Storage(changed(server, secret_key=SecretStr("wrong-secret"))).check(BUCKET)
        assert "RESPROUT_STORAGE_SECRET_KEY" in caught.value.now
        assert "wrong-secret" not in str(caught.value)

    def test_a_wrong_access_key(self, server: Server) -> None:
        with pytest.raises(StorageError, match="does not know this access key"):
            Storage(changed(server, access_key=SecretStr("nobody"))).check(BUCKET)

    def test_no_such_bucket(self, storage: Storage, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="bucket does not exist"):
            storage.check("not-there")
        with pytest.raises(StorageError, match="bucket does not exist"):
            storage.upload(random_file(tmp_path / "file", 10), ObjectAddress("not-there", "file"))

    def test_no_such_object(self, storage: Storage, place: ObjectAddress, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="no such object"):
            storage.download(place / "nothing", tmp_path / "copy")

    @pytest.mark.parametrize("text", ["bucket/key", "https://bucket/key", "s3://", "s3:///key"])
    def test_what_is_no_address(self, text: str) -> None:
        with pytest.raises(StorageError, match="no address in object storage"):
            ObjectAddress.parse(text)

    def test_a_clock_that_is_wrong(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        right = minio.time.utcnow
        monkeypatch.setattr("minio.time.utcnow", lambda: right() - timedelta(hours=1))
        with pytest.raises(StorageError, match="clock"):
            Storage(changed(server)).check(BUCKET)

    def test_nobody_there(self, server: Server) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
            with pytest.raises(StorageError, match="does not answer"):
                Storage(changed(server, endpoint=endpoint)).check(BUCKET)

    def test_a_name_that_is_not_known(self, server: Server) -> None:
        with pytest.raises(StorageError, match="is not known here"):
            Storage(changed(server, endpoint="http://storage.invalid")).check(BUCKET)

    def test_tls_where_there_is_none(self, server: Server) -> None:
        endpoint = server.settings.endpoint.replace("http://", "https://")
        with pytest.raises(StorageError, match="does not speak TLS"):
            Storage(changed(server, endpoint=endpoint)).check(BUCKET)

    def test_a_certificate_that_nobody_vouches_for(self, server: Server, console: str, console_ca: Path) -> None:
        with pytest.raises(StorageError, match="is not trusted") as caught:
            Storage(changed(server, endpoint=console)).check(BUCKET)
        assert "RESPROUT_STORAGE_CA_FILE" in caught.value.now

    def test_a_web_console_in_place_of_the_server(self, server: Server, console: str, console_ca: Path) -> None:
        with pytest.raises(StorageError, match="not as an S3 server does"):
            list(Storage(changed(server, endpoint=console, ca_file=console_ca)).list(ObjectAddress(BUCKET, "")))


class _Console(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<html>Log in</html>"
        self.send_response(404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def _authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def console_ca(_authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    _authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def console(_authority: trustme.CA) -> Iterator[str]:
    """The address of something that speaks HTTPS, and is no S3 server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority.issue_cert("localhost").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Console) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"https://localhost:{http.server_port}"
        http.shutdown()
        thread.join()
