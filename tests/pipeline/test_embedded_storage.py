"""The run's own object store, as whoever lacks its credentials finds it: another user, a web page, another program."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
import urllib3

from pipeline import embedded_program
from pipeline.embedded_storage import BUCKET, Server
from resprout.errors import StorageError
from resprout.storage import ObjectAddress, Storage

NOBODY = 65534
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
REFUSALS = (b"", b"HTTP/1.0 400 Bad Request")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module's own, with an object in it."""
    folder = tmp_path_factory.mktemp("closed") / 'a "run" \\ ü'
    server = Server(folder)
    server.start()
    file = folder.with_name("file")
    file.write_text("a teacher")
    Storage(server.settings).upload(file, ObjectAddress(BUCKET, "teachers/teacher"))
    yield server
    server.stop()


def folder_of(server: Server) -> Path:
    return server._directory


def listening(server: Server) -> tuple[list[int], list[Path]]:
    """The TCP ports and Unix sockets that the server's process listens on, as the kernel knows them."""
    assert server._process is not None
    process = Path(f"/proc/{server._process.pid}")
    links = [os.readlink(link) for link in (process / "fd").iterdir() if link.is_symlink()]
    own = {match[1] for link in links if (match := re.fullmatch(r"socket:\[(\d+)\]", link))}
    tcp = [line.split() for name in ("tcp", "tcp6") for line in (process / "net" / name).read_text().splitlines()[1:]]
    unix = [line.split(maxsplit=7) for line in (process / "net" / "unix").read_text().splitlines()[1:]]
    ports = [int(fields[1].rpartition(":")[2], 16) for fields in tcp if fields[3] == "0A" and fields[9] in own]
    sockets = {(process / "cwd").readlink() / fields[7] for fields in unix if fields[6] in own and len(fields) == 8}
    return ports, sorted(sockets)


def as_nobody(ask: Callable[[], object]) -> object:
    """What a function finds in a process of another user, where this one is root."""
    if os.getuid():
        return ask()
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a child of a process with threads; it ends below
        child = os.fork()
    if not child:
        with suppress(Exception):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(write, json.dumps(ask()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    assert text, "it ended without an answer"
    return json.loads(text)


def answer(port: int, request: bytes, wrapped: Callable[[socket.socket], socket.socket] = lambda it: it) -> str:
    """The first line or frame that a port answers; "" where it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        try:
            with wrapped(connection) as channel:
                channel.sendall(request)
                return channel.recv(64).partition(b"\r\n")[0].decode("latin-1")
        except (ssl.SSLError, ConnectionError):
            return ""


def in_tls(own: bytes | None = None, key: bytes | None = None) -> Callable[[socket.socket], socket.socket]:
    """TLS that takes any server's word, with no certificate or with one that some authority gave."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    if own is not None and key is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(key + own)
            file.flush()
            context.load_cert_chain(file.name)
    return lambda connection: context.wrap_socket(connection)


def test_every_port_but_that_of_s3_hangs_up_on_whoever_has_no_key(closed: Server):
    ports, _ = listening(closed)
    s3 = closed._ports["s3"]
    assert len(ports) == 10
    stranger = trustme.CA().issue_cert("127.0.0.1", common_name="resprout")
    own, key = stranger.cert_chain_pems[0].bytes(), stranger.private_key_pem.bytes()
    ways = {"plain": lambda it: it, "without a certificate": in_tls(), "with a stranger's": in_tls(own, key)}
    requests = {
        "read": b"GET /buckets/resprout/teachers/teacher HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
        "assign": b"GET /dir/assign HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://attacker.example\r\n\r\n",
        "write": b"PUT /buckets/resprout/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx",
        "gRPC": PREFACE,
    }

    def ask() -> list[tuple[int, str, str, str]]:
        return [
            (port, name, way, answer(port, request, wrapped))
            for port in ports
            if port != s3
            for name, request in requests.items()
            for way, wrapped in ways.items()
        ]

    found = as_nobody(ask)
    assert isinstance(found, list)
    assert len(found) == 9 * 4 * 3
    answered = [it for it in found if it[3].encode("latin-1") not in REFUSALS]
    assert answered == []


def test_s3_gives_nothing_and_takes_nothing_without_credentials_nor_from_a_web_page(closed: Server):
    page = {"Origin": "https://attacker.example", "Access-Control-Request-Method": "PUT"}
    form = {"fields": {"key": "teachers/teacher", "file": ("file", b"another")}}
    url = closed.settings.endpoint

    def ask() -> dict[str, tuple[int, bool]]:
        with urllib3.PoolManager() as http:
            answers = {
                "list": http.request("GET", f"{url}/{BUCKET}"),
                "buckets": http.request("GET", f"{url}/"),
                "read": http.request("GET", f"{url}/{BUCKET}/teachers/teacher", headers=page),
                "write": http.request("PUT", f"{url}/{BUCKET}/teachers/teacher", body=b"another", headers=page),
                "delete": http.request("DELETE", f"{url}/{BUCKET}/teachers/teacher"),
                "form": http.request("POST", f"{url}/{BUCKET}", headers={"Origin": page["Origin"]}, **form),
                "may I": http.request("OPTIONS", f"{url}/{BUCKET}/teachers/teacher", headers=page),
            }
        return {name: (it.status, "Access-Control-Allow-Origin" in it.headers) for name, it in answers.items()}

    found = as_nobody(ask)
    assert isinstance(found, dict)
    found.pop("buckets")  # of the server's root, anybody may read that it refuses
    assert {name: (status >= 400, named) for name, (status, named) in found.items()} == dict.fromkeys(
        found, (True, False)
    )
    kept = Storage(closed.settings).download(ObjectAddress(BUCKET, "teachers/teacher"), folder_of(closed) / "back")
    assert (folder_of(closed) / "back").read_text() == "a teacher", kept


def test_nobody_else_reads_its_files_or_speaks_through_its_sockets(closed: Server):
    folder = folder_of(closed)
    _, sockets = listening(closed)
    assert len(sockets) >= 6
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("server.key", "security.toml"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in sockets} == {0}
    if os.getuid():
        return

    def ask() -> list[str]:
        told = []
        for path in sockets:
            with socket.socket(socket.AF_UNIX) as speaking:
                try:
                    speaking.connect(str(path))
                    told.append(str(path))
                except PermissionError:
                    continue
        return told

    assert as_nobody(ask) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_leaves_no_socket_outside_its_folder(tmp_path: Path, how: signal.Signals):
    server = Server(tmp_path / "server")
    server.start()
    _, sockets = listening(server)

    server.stop(how)

    assert sockets
    assert [path for path in sockets if path.exists() and path.parent != tmp_path / "server"] == []


def test_another_program_called_weed_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ran = tmp_path / "ran"
    program = tmp_path / "weed"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded_program, "found", lambda: program)

    with pytest.raises(StorageError, match="is not the SeaweedFS that Resprout knows") as refused:
        Server(tmp_path / "server").start()

    assert "why: it would run with your rights" in str(refused.value)
    assert not ran.exists()
