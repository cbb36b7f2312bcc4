"""The way out of a container: it leads where its stage has to go, whatever it is asked for."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from pipeline import doors
from pipeline.doors import Destinations, door
from pipeline.embedded_storage import BUCKET, Server
from resprout import tunnel
from resprout.errors import StorageError
from resprout.storage import ObjectAddress, Storage

ME = (os.getuid(), os.getgid())
Names = Callable[[dict[str, str]], None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Lets names lead to addresses, as somebody else's name server may."""

    def set_them(known: dict[str, str]) -> None:
        def look_up(host: str, port: int, type: int = 0) -> list[tuple[object, ...]]:
            address = known.get(host, host)
            return [(socket.AF_INET6 if ":" in address else socket.AF_INET, type, 6, "", (address, port))]

        monkeypatch.setattr(doors.socket, "getaddrinfo", look_up)

    return set_them


@pytest.fixture
def page() -> Iterator[tuple[str, int]]:
    """A server on this machine's loopback."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.headers["Host"].encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield "127.0.0.1", server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("address", "leads"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("169.254.169.254", False),
        ("fd00:ec2::254", False),
        ("fe80::1", False),
        ("100.100.100.200", False),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("172.17.0.1", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
    ],
)
def test_the_internet_is_what_has_a_public_address(names: Names, address: str, leads: bool):
    names({"somewhere.example": address})
    anywhere = Destinations(internet=True)

    for host in ("somewhere.example", address):
        assert bool(anywhere.addresses(host, 443)) == leads
        assert anywhere.addresses(host, 80) == [], "https alone"
        assert Destinations().addresses(host, 443) == []


def test_an_address_that_a_recipe_names_may_be_in_the_office_but_not_on_this_machine(names: Names):
    names(
        {
            "files.office": "10.1.2.3",
            "other.office": "10.1.2.4",
            "here.office": "127.0.0.1",
            "cloud.office": "169.254.169.254",
        }
    )

    def named(host: str) -> list[tuple[str, int]]:
        return Destinations(internet=True, named=f"https://u:p@{host}:8443/net").addresses(host, 8443)

    assert named("files.office") == [("10.1.2.3", 8443)]
    assert named("here.office") == named("cloud.office") == []
    assert Destinations(internet=True, named="https://files.office/net").addresses("other.office", 443) == []


def test_storage_is_reached_by_its_name_or_a_buckets_and_at_its_port(names: Names):
    names({})
    storage = Destinations(endpoint="https://s3.example.org:9000")

    assert storage.addresses("s3.example.org", 9000)
    assert storage.addresses("bucket.s3.example.org", 9000)
    assert storage.addresses("s3.example.org", 443) == []
    assert storage.addresses("evils3.example.org", 9000) == []
    assert Destinations(endpoint="http://127.0.0.1:9000").addresses("127.0.0.1", 9001) == []
    aws = Destinations(endpoint="https://s3.amazonaws.com")
    assert aws.addresses("bucket.s3.dualstack.eu-central-1.amazonaws.com", 443)
    assert aws.addresses("s3.eu-central-1.amazonaws.com", 443)
    assert aws.addresses("ec2.eu-central-1.amazonaws.com", 443) == []
    assert storage.addresses("s3.amazonaws.com", 9000) == []


def test_a_name_is_asked_for_once(names: Names, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    names({"rebinding.example": "93.184.215.14"})
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(doors.socket, "create_connection", connect)
    with (
        door(tmp_path / "door", Destinations(internet=True), ME) as path,
        pytest.raises(ConnectionRefusedError, match="403"),
    ):
        tunnel.connected(str(path), "rebinding.example", 443)
    assert asked == [("93.184.215.14", 443)]


def test_storage_is_used_through_a_door_however_long_its_path(server: Server, tmp_path: Path):
    address = ObjectAddress(BUCKET, f"tests/{tmp_path.name}/file")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(300_000))
    deep = tmp_path / ("x" * 120) / ("y" * 120)

    with door(deep, Destinations(endpoint=server.settings.endpoint), ME) as path:
        short = tmp_path / "short"
        short.symlink_to(path.parent)
        settings = server.settings.model_copy(update={"socket": short / path.name, "retries": 0})
        Storage(settings).upload(file, address)
        Storage(settings).download(address, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert not deep.exists()
    with pytest.raises(StorageError):
        Storage(settings).check(BUCKET)


def test_a_door_to_storage_leads_nowhere_else(server: Server, tmp_path: Path, page: tuple[str, int]):
    with door(tmp_path / "door", Destinations(endpoint=server.settings.endpoint), ME) as path:
        for host, port in (page, ("localhost", page[1]), ("127.0.0.1", 22), ("localhost", server._ports["filer"])):
            with pytest.raises(ConnectionError):
                tunnel.connected(str(path), host, port)


@pytest.mark.parametrize(
    "said", [b"GET http://127.0.0.1/ HTTP/1.1\r\n\r\n", b"CONNECT nonsense\r\n\r\n", b"x" * 9000, b"\r\n\r\n"]
)
def test_other_words_are_not_understood(tmp_path: Path, said: bytes):
    with door(tmp_path / "door", Destinations(internet=True), ME) as path, socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(5)
        caller.connect(str(path))
        caller.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            assert not caller.recv(64).startswith(b"HTTP/1.1 200")


def test_what_downloads_speaks_to_a_port_that_leads_to_the_door(tmp_path: Path, page: tuple[str, int]):
    with door(tmp_path / "door", Destinations(endpoint=f"http://127.0.0.1:{page[1]}"), ME) as path:
        port = tunnel.listening(str(path))
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            place = f"127.0.0.1:{page[1]}"
            connection.sendall(f"CONNECT {place} HTTP/1.1\r\n\r\n".encode())
            assert b" 200 " in tunnel.head(connection)
            connection.sendall(f"GET / HTTP/1.0\r\nHost: {place}\r\n\r\n".encode())
            assert connection.makefile("rb").read().endswith(place.encode())
        opener = build_opener(ProxyHandler({"https": f"http://127.0.0.1:{port}"}))
        with pytest.raises(OSError, match="403"):
            opener.open(f"https://127.0.0.1:{page[1] + 1}/", timeout=5)
