"""Asking Kubeflow Pipelines' API: with a token that is renewed, again where it may help, for no longer than is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import kfp_server_api as kfp
import urllib3
from kfp_server_api import ApiException
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential
from urllib3 import exceptions as http

from pipeline.cluster.answers import explained, may_succeed_later
from pipeline.cluster.settings import ClusterSettings

T = TypeVar("T")

# pauses of 1, 2, 4, 8 and then 15 seconds: two minutes, and half an hour for who waits for a run anyway
ATTEMPTS = 12
ATTEMPTS_WHILE_WAITING = 122
LONGEST_PAUSE_SECONDS = 15
CONNECT_SECONDS, SILENT_SECONDS = 10, 60
PAGE = 100


class Connection:
    """A client of one KFP's API.

    Args:
        settings: where it is.
        attempts: how often a request that may succeed later is made.
        tell: shows a person a line about what is being waited for.
        sleep: pauses for some seconds.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        attempts: int = ATTEMPTS,
        tell: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.client = _Client(_configuration(settings))
        self._attempts = attempts
        self._tell = tell
        self.sleep = sleep

    def patient(self) -> Connection:
        """The same, for who waits for a run anyway."""
        return Connection(self.settings, attempts=ATTEMPTS_WHILE_WAITING, tell=self._tell, sleep=self.sleep)

    def ask(self, action: str, question: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """What a question answers, asked again while that may help.

        Args:
            action: what is tried, as in "cannot create the run".
            question: asks once, with what follows.

        Raises:
            ClusterError: it was refused, or not answered in time.
        """
        told = False

        def tell(state: RetryCallState) -> None:
            nonlocal told
            if not told and state.outcome is not None and (error := state.outcome.exception()) is not None:
                told = True
                self._tell(f"{explained(action, error, self.settings).why}; trying again, Ctrl-C ends this")

        retrying = Retrying(
            retry=retry_if_exception(lambda error: may_succeed_later(error, self.settings)),
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential(max=LONGEST_PAUSE_SECONDS),
            before_sleep=tell,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return retrying(question, *arguments, **named)
        except (ApiException, http.HTTPError, OSError) as error:
            raise explained(action, error, self.settings) from error

    def pages(self, action: str, listing: Callable[..., Any], *arguments: Any, **named: Any) -> Iterator[Any]:
        """Every page of a list.

        Raises:
            ClusterError: as `ask`.
        """
        token = ""
        while True:
            more = {"page_token": token} if token else {}
            page = self.ask(action, listing, *arguments, page_size=PAGE, **more, **named)
            yield page
            token = page.next_page_token or ""
            if not token:
                return

    def get(self, path: str) -> str:
        """What a path answers, as text; once.

        Raises:
            ApiException, HTTPError: as the client does.
        """
        answer = self.client.call_api(
            path, "GET", auth_settings=["Bearer"], _preload_content=False, _return_http_data_only=True
        )
        data: bytes = answer.data
        return data.decode("utf-8", "replace")


class _Client(kfp.ApiClient):  # type: ignore[misc]
    def request(self, *arguments: Any, **named: Any) -> Any:
        # without it, a server that stays silent is waited for forever
        return super().request(*arguments, **{**named, "_request_timeout": (CONNECT_SECONDS, SILENT_SECONDS)})


def _configuration(settings: ClusterSettings) -> kfp.Configuration:
    configuration = kfp.Configuration()
    configuration.host = settings.host
    configuration.ssl_ca_cert = str(settings.ca_file) if settings.ca_file else None
    # asking again is ours to decide; a redirect leads to a login page
    configuration.retries = urllib3.Retry(
        total=None, connect=0, read=0, redirect=0, status=0, other=0, raise_on_redirect=False
    )
    if settings.has_token:

        def renew(its: kfp.Configuration) -> None:
            its.api_key["authorization"] = settings.current_token()

        configuration.api_key_prefix["authorization"] = "Bearer"
        renew(configuration)
        configuration.refresh_api_key_hook = renew
    return configuration


def none_if_missing(question: Callable[..., T]) -> Callable[..., T | None]:
    """A question whose answer is None where there is no such thing."""

    def ask(*arguments: Any, **named: Any) -> T | None:
        try:
            return question(*arguments, **named)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    return ask
