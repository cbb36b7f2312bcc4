from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.embedded_storage import BUCKET, Server
from resprout.storage import ObjectAddress, Storage


@pytest.fixture
def storage(server: Server) -> Storage:
    return Storage(server.settings)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> ObjectAddress:
    """Where a test's own objects go."""
    return ObjectAddress(BUCKET, f"tests/{request.node.name}")


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may kill."""
    server = Server(tmp_path / "own")
    server.start()
    yield server
    server.stop()
