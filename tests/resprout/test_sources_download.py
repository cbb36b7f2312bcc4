"""https:// against a real TLS server on the loopback, whose certificate a temporary authority signed."""

from __future__ import annotations

import base64
import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from safetensors.torch import save

from resprout.errors import ArtifactError, RecipeError, UnsupportedModelError
from resprout.progress import Progress
from resprout.recipe import InputSection, TeacherSection
from resprout.sources import download, fetch
from resprout.types import Teacher
from resprout.urls import without_secrets


class Server(ThreadingHTTPServer):
    """Answers with `files[path]`; /moved/… redirects to `redirects[path]`; /short/… ends halfway."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        # the handshake is the handler's, so that a client that breaks it off does not stop the server
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.slow = ""
        self.tells_length = True

    def url(self, path: str, credentials: str = "") -> str:
        return f"https://{credentials}localhost:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the test."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        path = self.path.partition("?")[0]
        if path in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[path])
            self.end_headers()
            return
        content = self.server.files.get(path.removeprefix("/short"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        if self.server.tells_length:
            self.send_header("Content-Length", str(len(content)))
        if path == "/slow" and self.server.slow == "head":
            self._dribble()
        self.end_headers()
        if path == "/slow":
            self._dribble()
        self.wfile.write(content[: len(content) // 2] if path.startswith("/short") else content)

    def _dribble(self) -> None:
        """Send a byte at a time until nobody listens any more."""
        with suppress(OSError):
            while True:
                self.wfile.write(b"x")
                self.flush_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing, so that tests stay readable."""


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(context) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def weights(tiny_teacher: Teacher, server: Server) -> str:
    """The sha256 of the tiny teacher's weights, which the server has at /w.safetensors."""
    server.files["/w.safetensors"] = save(dict(tiny_teacher.network.state_dict()))
    return hashlib.sha256(server.files["/w.safetensors"]).hexdigest()


def section_of(url: str, sha256: str | None) -> TeacherSection:
    return TeacherSection(
        source=url,
        sha256=sha256,
        architecture="cifar_resnet8",
        arguments={"width": 8},
        input=InputSection(shape=(3, 16, 16)),
    )


def test_weights_come_over_https_and_their_size_is_reported(server: Server, weights: str) -> None:
    steps: list[Progress] = []
    teacher = fetch(section_of(server.url("/w.safetensors"), weights), report=steps.append)
    assert teacher.digest == weights
    assert teacher.info.num_classes == 4
    size = len(server.files["/w.safetensors"])
    told = [step for step in steps if step.unit == "bytes"]
    assert (told[-1].done, told[-1].total) == (size, size)


def test_secrets_in_the_address_reach_the_server_and_nothing_else(server: Server, weights: str) -> None:
    teacher = fetch(section_of(server.url("/w.safetensors?token=s3cret", "me:p%40ss@"), weights))
    assert server.seen == [("/w.safetensors?token=s3cret", "Basic " + base64.b64encode(b"me:p@ss").decode())]
    assert teacher.source == server.url("/w.safetensors")


def test_credentials_do_not_follow_a_redirect(server: Server, weights: str) -> None:
    server.redirects["/moved"] = server.url("/w.safetensors")
    fetch(section_of(server.url("/moved", "me:pass@"), weights))
    assert [credentials is None for _, credentials in server.seen] == [False, True]


def test_a_redirect_to_plain_http_is_refused(server: Server, weights: str) -> None:
    server.redirects["/moved"] = "http://localhost/w.safetensors"
    with pytest.raises(ArtifactError, match="redirects to plain http"):
        fetch(section_of(server.url("/moved"), weights))


def test_other_bytes_than_agreed_are_refused(server: Server, weights: str) -> None:
    server.files["/w.safetensors"] += b" "
    with pytest.raises(ArtifactError, match=f"but the recipe says {weights}"):
        fetch(section_of(server.url("/w.safetensors"), weights))


@pytest.mark.parametrize(
    ("path", "reason"), [("/absent", "404"), ("/short/w.safetensors", r"ended after \d+ of \d+ bytes")]
)
def test_what_does_not_arrive_whole_is_refused_without_showing_secrets(
    server: Server, weights: str, path: str, reason: str
) -> None:
    with pytest.raises(ArtifactError, match=reason) as refusal:
        fetch(section_of(server.url(f"{path}?token=s3cret", "me:hunter2@"), weights))
    assert not any(secret in str(refusal.value) for secret in ("s3cret", "hunter2"))


@pytest.mark.parametrize("head_first", [True, False])
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for_without_end(
    server: Server, weights: str, monkeypatch: pytest.MonkeyPatch, head_first: bool
) -> None:
    monkeypatch.setattr(download, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(download, "SLOWEST", 1 << 40)
    server.files["/slow"] = server.files["/w.safetensors"]
    server.slow = "body" if head_first else "head"
    with pytest.raises(ArtifactError, match="cannot be downloaded"):
        fetch(section_of(server.url("/slow"), weights))


@pytest.mark.parametrize("told", [True, False])
def test_a_download_larger_than_any_classifier_is_refused(
    server: Server, weights: str, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    server.tells_length = told
    with pytest.raises(ArtifactError, match="which no image classifier is"):
        fetch(section_of(server.url("/w.safetensors"), weights))


def test_the_limits_are_above_what_classifiers_need() -> None:
    assert download.MAX_BYTES >= 8 << 30
    assert download.GRACE_SECONDS / 60 >= 2
    assert download.SLOWEST <= 1 << 17


def test_a_certificate_that_nobody_signed_is_refused(
    server: Server, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    with pytest.raises(ArtifactError, match=r"(?i)certificate"):
        fetch(section_of(server.url("/w.safetensors"), weights))


def test_an_https_teacher_needs_a_digest(server: Server, weights: str) -> None:
    with pytest.raises(RecipeError, match=r"teacher\.sha256: is required for https://localhost"):
        fetch(section_of(server.url("/w.safetensors", "me:hunter2@"), None))
    assert server.seen == []


def test_a_download_that_is_no_weights_file_is_named_by_its_address(server: Server) -> None:
    server.files["/page"] = b"<html>please log in</html>"
    digest = hashlib.sha256(server.files["/page"]).hexdigest()
    with pytest.raises(UnsupportedModelError, match=r"teacher 'https://localhost:\d+/page' is a web page, not weights"):
        fetch(section_of(server.url("/page"), digest))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a/b.pt", "https://host/a/b.pt"),
        ("https://user:pass@host:8443/b.pt?X-Amz-Signature=abc#part", "https://host:8443/b.pt"),
        ("https://us@er:pa@ss@host/b.pt", "https://host/b.pt"),
    ],
)
def test_what_is_shown_of_an_address_holds_no_secret(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
