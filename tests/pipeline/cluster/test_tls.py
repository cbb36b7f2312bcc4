"""Certificates: trusted when named, refused with the remedy when not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from pipeline.cluster.asking import Connection
from pipeline.cluster.server import Server
from pipeline.cluster.settings import ClusterSettings
from resprout.errors import ClusterError
from tests.pipeline.cluster.fake_kfp import FakeKfp, serving


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[FakeKfp, Path]]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(tls=context) as kfp:
        yield kfp, tmp_path / "ca.crt"


def test_an_authority_that_is_named_is_trusted(encrypted: tuple[FakeKfp, Path]) -> None:
    kfp, authority = encrypted
    Server(Connection(ClusterSettings(host=kfp.url, ca_file=authority), sleep=kfp.sleep)).check()

    assert kfp.calls("GET", "/apis/v2beta1/healthz") == 1


def test_one_that_is_not_is_refused_at_once(encrypted: tuple[FakeKfp, Path]) -> None:
    kfp, _ = encrypted
    with pytest.raises(ClusterError, match="is not trusted") as refused:
        Server(Connection(ClusterSettings(host=kfp.url), sleep=kfp.sleep)).check()

    assert "--ca-file" in refused.value.now
    assert kfp.clock == 0


def test_https_to_a_server_without_it_is_told_as_that() -> None:
    with serving() as kfp, pytest.raises(ClusterError, match="does not speak TLS"):
        Server(Connection(ClusterSettings(host=kfp.url.replace("http:", "https:")), sleep=kfp.sleep)).check()
