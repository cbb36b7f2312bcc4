"""What is tried again says so: why, and for how long still; with a clock of the test's, which only waiting moves."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3
from tenacity import retry_if_result

from pipeline.embedded_storage import BUCKET, Server
from resprout.errors import StorageAwayError, StorageError
from resprout.storage import ObjectAddress, Storage
from resprout.storage.patience import Patience


class Clock:
    """Time that passes while somebody sleeps, and then calls what a test wants to happen."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.then: Callable[[float], None] = lambda seconds: None

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.then(self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def patient(server: Server, clock: Clock, **fields: object) -> Storage:
    return Storage(server.settings.model_copy(update=fields), sleep=clock.sleep, clock=clock)


@contextmanager
def answering(statuses: list[int]) -> Iterator[str]:
    """The address of a server that answers with each of these in turn."""

    class Handler(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            self.send_response(statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.send_header("Retry-After", "3600")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_an_outage_is_told_after_ten_seconds_and_what_is_told_comes_true(
    own_server: Server, clock: Clock, said: Callable[[], list[str]]
):
    own_server.stop()

    with pytest.raises(StorageAwayError, match="does not answer"):
        patient(own_server, clock).check(BUCKET)

    first, second = said()
    assert first == (
        f"storage: GET /{BUCKET} has failed for 13 s (Connection refused, {own_server.settings.endpoint}); "
        "it is tried again for about 40 s more, then given up"
    )
    assert "for 43 s" in second, "a line in half a minute, not one for each try"
    assert "for about 10 s more" in second
    assert clock.seconds == pytest.approx(12.6 + 40)


def test_a_server_that_takes_half_a_minute_to_refuse_is_not_waited_for_as_often(
    clock: Clock, said: Callable[[], list[str]]
):
    def refused() -> urllib3.HTTPResponse:
        clock.seconds += 30
        return urllib3.HTTPResponse(status=500)

    patience = Patience("http://store", 10, sleep=clock.sleep, clock=clock)

    assert patience.insist("PUT /a", refused, retry_if_result(lambda answer: answer.status == 500)).status == 500
    assert 112 < clock.seconds < 112 + 30 + 10  # the pauses' 52, and a minute; then what was begun
    told = [float(re.findall(r"about (\d+) s more", line)[0]) for line in said()]
    assert told == sorted(told, reverse=True)
    assert told[0] <= 112


def test_what_is_over_within_ten_seconds_is_no_news(own_server: Server, clock: Clock, said: Callable[[], list[str]]):
    own_server.stop()
    clock.then = lambda seconds: own_server.start() if seconds == pytest.approx(3.0) else None

    patient(own_server, clock).check(BUCKET)

    assert (said(), clock.seconds) == ([], pytest.approx(3.0))


def test_a_server_that_comes_back_ends_the_outage(own_server: Server, clock: Clock, said: Callable[[], list[str]]):
    own_server.stop()
    clock.then = lambda seconds: own_server.start() if seconds > 30 else None

    patient(own_server, clock).check(BUCKET)

    assert [line.split(" (")[0] for line in said()] == [
        f"storage: GET /{BUCKET} has failed for 13 s",
        f"storage: GET /{BUCKET} succeeded after 33 s",
    ]


def test_a_store_without_room_is_told_and_explained(
    full: Server, clock: Clock, said: Callable[[], list[str]], tmp_path: Path
):
    with pytest.raises(StorageAwayError, match="has no room for it, or fails inside") as caught:
        patient(full, clock, retries=7).upload(tmp_path / "file", ObjectAddress("second", "file"))

    assert "-volume.max=100" in caught.value.now
    assert "storage: PUT /second/file has failed for 13 s (HTTP 500, " in said()[0]


def test_threads_that_wait_for_one_server_do_not_all_say_so(
    own_server: Server, clock: Clock, said: Callable[[], list[str]], tmp_path: Path
):
    own_server.stop()
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(8):
        (folder / str(number)).write_text("each is uploaded by a thread")
    together = threading.Barrier(8, timeout=60)

    def sleep(seconds: float) -> None:
        if together.wait() == 0:
            clock.seconds += seconds
        together.wait()

    storage = Storage(own_server.settings, sleep=sleep, clock=clock)
    with pytest.raises(StorageAwayError):
        storage.upload_folder(folder, ObjectAddress(BUCKET, "folder"))

    assert len(said()) == 2, "at 13 and at 43 seconds"


def test_a_signature_is_never_in_a_line(own_server: Server, clock: Clock, said: Callable[[], list[str]]):
    own_server.stop()

    with pytest.raises(StorageAwayError):
        patient(own_server, clock).claim(ObjectAddress(BUCKET, "claim"), b"{}")

    assert f"storage: PUT /{BUCKET}/claim has failed" in said()[0]
    assert "Signature" not in "".join(said())


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 507])
def test_each_way_of_being_busy_or_full_is_tried_again(status: int, server: Server, clock: Clock):
    answers = [status, status, 204]

    with answering(answers) as endpoint:
        patient(server, clock, endpoint=endpoint).remove(ObjectAddress(BUCKET, "x"))

    assert (answers, clock.seconds) == ([], pytest.approx(0.2 + 0.4))


def test_what_is_given_up_ends_with_the_servers_last_answer(server: Server, clock: Clock):
    with answering([503] * 3) as endpoint, pytest.raises(StorageAwayError, match=r"kept failing \(HTTP 503\)"):
        patient(server, clock, endpoint=endpoint, retries=2).remove(ObjectAddress(BUCKET, "x"))


def test_a_refusal_is_not_tried_again(server: Server, clock: Clock):
    with pytest.raises(StorageError, match="bucket does not exist") as caught:
        patient(server, clock).check("not-there")
    assert not isinstance(caught.value, StorageAwayError)
    assert clock.seconds == 0
