from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
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


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "resprout.storage"]
