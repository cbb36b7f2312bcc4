"""The way out of a container without a network: a proxy on a Unix socket, which leads where a stage must go alone.

A container on a network of Docker's reaches all that this machine reaches: what listens in the office, a cloud's
metadata with its credentials, and on the host's own network what listens on loopback. This one leads to the object
storage of the run and, where something is fetched from the internet, to public addresses.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from resprout import tunnel

NAME = "door"
HTTPS = 443
PATIENCE_SECONDS = 30.0
_AWS = re.compile(r"(?:^|\.)s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com(?:\.cn)?$")
_PORTS = {"http": 80, "https": HTTPS}


@dataclass(frozen=True)
class Destinations:
    """Where a stage may go.

    Args:
        endpoint: the object storage that it needs; None: none.
        internet: whether it may reach every public address, over HTTPS.
        named: an https:// address that was given by its name, wherever that is but on this machine; None: none.
    """

    endpoint: str | None = None
    internet: bool = False
    named: str | None = None

    def addresses(self, host: str, port: int) -> list[tuple[str, int]]:
        """Where a name leads to; [] where that is none of these.

        Raises:
            OSError: there is no such name.
        """
        if self.endpoint and _leads_to(self.endpoint, host, port):
            return _looked_up(host, port)
        if self.named and (host, port) == _place(self.named):
            found = _looked_up(host, port)
            return found if not any(map(_is_near, found)) else []
        if self.internet and port == HTTPS:
            found = _looked_up(host, port)
            return found if all(map(_is_public, found)) else []
        return []  # and nobody is asked for the name: what is asked for may be a message


def _looked_up(host: str, port: int) -> list[tuple[str, int]]:
    return [(str(info[4][0]), port) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _leads_to(endpoint: str, host: str, port: int) -> bool:
    """Whether a place is an S3 server's: by its name, or with a bucket before it, or as AWS calls its own by region."""
    server, its_port = _place(endpoint)
    among_aws = bool(_AWS.search(server) and _AWS.search(host))
    return port == its_port and (host == server or host.endswith(f".{server}") or among_aws)


def _ip(address: tuple[str, int]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def _is_near(address: tuple[str, int]) -> bool:
    # link-local is where clouds keep their machines' credentials
    ip = _ip(address)
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast


def _is_public(address: tuple[str, int]) -> bool:
    return _ip(address).is_global and not _is_near(address)


@contextlib.contextmanager
def door(folder: Path, leads_to: Destinations, user: tuple[int, int]) -> Iterator[Path]:
    """A door in a folder while the block runs.

    Args:
        folder: made for it, and removed; its user's alone.
        leads_to: where it leads.
        user: who may go through it: user and group.

    Yields:
        The socket.
    """
    folder.mkdir(mode=0o700, parents=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # the path of a socket may have 107 bytes, that of a run's folder any number
        with _Server(f"/proc/self/fd/{handle}/{NAME}", _Caller) as server:
            server.destinations = leads_to
            for path in (folder, folder / NAME):
                if os.getuid() == 0:
                    os.chown(path, *user)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            try:
                yield folder / NAME
            finally:
                server.shutdown()
    finally:
        os.close(handle)
        (folder / NAME).unlink(missing_ok=True)
        folder.rmdir()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    destinations: Destinations


class _Caller(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        caller: socket.socket = self.request
        with contextlib.suppress(OSError, ValueError):  # it hung up, or spoke something else
            caller.settimeout(PATIENCE_SECONDS)
            method, place, _ = tunnel.head(caller).decode("latin-1").split(" ", 2)
            host, _, port = place.rpartition(":")
            beyond = self._beyond(host.strip("[]"), int(port)) if method == "CONNECT" else None
            if beyond is None:
                caller.sendall(b"HTTP/1.1 403 This stage may not go there\r\nContent-Length: 0\r\n\r\n")
                return
            caller.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            caller.settimeout(None)
            tunnel.join(caller, beyond)

    def _beyond(self, host: str, port: int) -> socket.socket | None:
        """A connection to where a name led when it was judged: asked again, it might lead elsewhere."""
        for address in self.server.destinations.addresses(host, port):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(address, PATIENCE_SECONDS)
                connection.settimeout(None)
                return connection
        return None
