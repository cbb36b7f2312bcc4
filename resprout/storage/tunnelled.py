"""How urllib3 connects through a Unix socket: to whichever host, with or without TLS."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from resprout import tunnel


def pools(door: Path) -> dict[str, Any]:
    """What takes the place of a `PoolManager`'s `pool_classes_by_scheme`.

    Args:
        door: the socket, as `resprout.tunnel` knows it.
    """

    def opened(connection: HTTPConnection) -> socket.socket:
        timeout = connection.timeout if isinstance(connection.timeout, (int, float)) else None
        try:
            return tunnel.connected(str(door), connection.host, connection.port, timeout)
        except OSError as error:
            raise NewConnectionError(connection, f"through {door}: {error}") from error

    class _Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return opened(self)

    class _Encrypted(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return opened(self)

    class _Pool(HTTPConnectionPool):
        ConnectionCls = _Plain

    class _EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = _Encrypted

    return {"http": _Pool, "https": _EncryptedPool}
