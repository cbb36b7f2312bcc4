"""Connections through a Unix socket behind which somebody decides where they may lead: the way out of a container.

The protocol is CONNECT of HTTP (RFC 9110, section 9.3.6), which what downloads speaks with a proxy anyway.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

LONGEST_HEAD = 8192
BLOCK = 1 << 16


def connected(door: str, host: str, port: int, timeout: float | None = None) -> socket.socket:
    """A connection to a port of a host, through a door.

    Args:
        door: the path of a Unix socket.
        host, port: where to.
        timeout: in seconds, of this connection; None: none.

    Raises:
        OSError: nobody is at the door, or it does not lead there.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        connection.connect(door)
        connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        status = head(connection).partition(b"\r\n")[0]
        if status.split(b" ")[1:2] != [b"200"]:
            raise ConnectionRefusedError(status.decode("latin-1"))
    except BaseException:
        connection.close()
        raise
    return connection


def head(connection: socket.socket) -> bytes:
    """The lines up to the first empty one, and no byte more.

    Raises:
        ConnectionError: the other side hangs up before, or does not come to an end.
    """
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(read) == LONGEST_HEAD:
            raise ConnectionResetError("no answer of HTTP")
        read += byte
    return read


def join(one: socket.socket, other: socket.socket) -> None:
    """Hand on what either side says until both have ended, and close them."""
    with one, other:
        back = threading.Thread(target=_copy, args=(other, one), daemon=True)
        back.start()
        _copy(one, other)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(BLOCK):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def listening(door: str) -> int:
    """A port of loopback that leads to a door for as long as this process lives: for what knows TCP alone."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            caller, _ = listener.accept()
            beyond = socket.socket(socket.AF_UNIX)
            try:
                beyond.connect(door)
            except OSError:
                caller.close()
                beyond.close()
                continue
            threading.Thread(target=join, args=(caller, beyond), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])
