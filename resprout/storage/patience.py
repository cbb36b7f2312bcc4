"""Requests that fail and may succeed later are made again; whoever waits for long is told why, and until when."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception, retry_if_result
from tenacity.retry import retry_base
from urllib3 import exceptions as http

FLEETING_STATUS = frozenset({429, 500, 502, 503, 504, 507})
"""HTTP: the server is busy, failed inside, has no room, or is a proxy that does not reach it."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0
SILENT_SECONDS, SECONDS_BETWEEN_LINES = 10.0, 30.0
FOR_ANSWERS_SECONDS = 60.0
"""How long all attempts together may take beside the pauses: SeaweedFS without room refuses after half a minute."""

_LASTING = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "record layer failure")
_REDIRECTS_ALONE = urllib3.Retry(
    total=5,
    connect=0,
    read=0,
    status=0,
    other=0,
    raise_on_redirect=False,
    respect_retry_after_header=False,  # a server may name any time; ours is known
)

_log = logging.getLogger("resprout.storage")

T = TypeVar("T")


class Patience:
    """How often something is tried again, and what is said meanwhile: at most a line in half a minute, of all threads.

    Args:
        endpoint: whom it is tried with.
        retries: how often after the first time.
        sleep, clock: what passes the time, and what measures it, in seconds.
    """

    def __init__(
        self,
        endpoint: str,
        retries: int,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._retries = retries
        self._sleep = sleep
        self._clock = clock
        self._one_at_a_time = threading.Lock()
        self._last_line = float("-inf")

    def insist(self, what: str, attempt: Callable[[], T], fleeting: retry_base) -> T:
        """Make an attempt until it succeeds, fails for good, or the retries are used up.

        Args:
            what: is tried, as in "PUT /bucket/key".
            attempt: to make.
            fleeting: which exceptions and results may be others next time.

        Returns:
            What the last attempt returned; what it raised is raised.
        """
        began = self._clock()
        told = given_up = False

        def before_sleep(state: RetryCallState) -> None:
            nonlocal told
            told = self._tell(what, state, self._clock() - began) or told

        def give_up(state: RetryCallState) -> Any:
            nonlocal given_up
            given_up = True
            return state.outcome.result() if state.outcome else None

        result = Retrying(
            retry=fleeting,
            stop=lambda state: state.attempt_number > self._retries or self._clock() - began >= self._longest(),
            wait=lambda state: pause(state.attempt_number),
            sleep=self._sleep,
            before_sleep=before_sleep,
            retry_error_callback=give_up,
        )(attempt)
        if told and not given_up:
            _log.warning("storage: %s succeeded after %.0f s", what, self._clock() - began)
        return result

    def _tell(self, what: str, state: RetryCallState, elapsed: float) -> bool:
        """Say that `what` fails, unless that is new, or something was said a moment ago; whether it was said."""
        now = self._clock()
        with self._one_at_a_time:
            if elapsed < SILENT_SECONDS or now - self._last_line < SECONDS_BETWEEN_LINES:
                return False
            self._last_line = now
        tries = self._retries + 1 - state.attempt_number
        pauses = sum(map(pause, range(state.attempt_number, self._retries + 1)))
        paused = sum(map(pause, range(1, state.attempt_number)))
        left = pauses + tries * (elapsed - paused) / state.attempt_number  # if attempts take as long as those before
        left = min(left, max(0.0, self._longest() - elapsed))
        _log.warning(
            "storage: %s has failed for %.0f s (%s, %s); it is tried again for about %.0f s more, then given up",
            *(what, elapsed, _reason(state), self._endpoint, left),
        )
        return True

    def _longest(self) -> float:
        return sum(map(pause, range(1, self._retries + 1))) + FOR_ANSWERS_SECONDS


class PatientPool(urllib3.PoolManager):
    """An HTTP client that makes fleeting failures' requests again with `Patience`, in place of urllib3's silent way."""

    def __init__(self, patience: Patience, **options: Any) -> None:
        super().__init__(**options)
        self._patience = patience

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        """See `urllib3.PoolManager.urlopen`. The last answer is returned, whatever its status."""
        if "retries" in options:  # where a redirect leads to: its failure is that of the request that led there
            return super().urlopen(method, url, redirect, **options)

        answer: urllib3.BaseHTTPResponse | None = None

        def attempt() -> urllib3.BaseHTTPResponse:
            nonlocal answer
            if answer is not None:
                answer.drain_conn()  # so that its connection can be used again
            answer = super(PatientPool, self).urlopen(method, url, redirect, retries=_REDIRECTS_ALONE, **options)
            return answer

        # without the query, in which a signature may be
        return self._patience.insist(f"{method} {urlsplit(url).path}", attempt, _FLEETING)


def pause(attempts: int) -> float:
    """Seconds between that many attempts and the next."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (attempts - 1), LONGEST_PAUSE_SECONDS)


def _fleeting_answer(answer: urllib3.BaseHTTPResponse) -> bool:
    return answer.status in FLEETING_STATUS


def _fleeting_error(error: BaseException) -> bool:
    return isinstance(error, http.HTTPError) and not any(text in str(error) for text in _LASTING)


_FLEETING = retry_if_exception(_fleeting_error) | retry_if_result(_fleeting_answer)


def _reason(state: RetryCallState) -> str:
    """What the last attempt failed of, in a few words."""
    if state.outcome is None:
        return ""
    error = state.outcome.exception()
    if error is None:
        return f"HTTP {state.outcome.result().status}"
    cause = getattr(error, "reason", None) or error
    return str(cause).rpartition(": ")[2].rpartition("] ")[2]  # "…: [Errno 111] Connection refused"
