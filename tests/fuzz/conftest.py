"""Inputs that nobody meant: each ends well or in an error for people, soon, and without eating the machine.

Each target takes few inputs as a rule, the same at each run. For long:

    RESPROUT_FUZZ_SECONDS=600 .venv/bin/python -m pytest tests/fuzz/test_NAME.py
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from resprout.errors import ResproutError

T = TypeVar("T")
Fuzz = Callable[..., None]

SECONDS = float(os.environ.get("RESPROUT_FUZZ_SECONDS", "0"))
HANGS_AFTER_SECONDS = 10


@pytest.fixture
def fuzz() -> Fuzz:
    """`fuzz(strategy, check)`: each value that the strategy draws, given to `check`, which may raise ResproutError."""
    return _fuzz


def _fuzz(
    strategy: SearchStrategy[T], check: Callable[[T], object], *, examples: int = 50, memory: int = 1 << 28
) -> None:
    """Give `check` what the strategy draws.

    Args:
        strategy: of inputs.
        check: may raise ResproutError and nothing else; a hang and a MemoryError are failures, too.
        examples: how many, where nobody asked for a time.
        memory: bytes that one input may take beside what the process holds.
    """
    give_up, round_ = time.monotonic() + SECONDS, 0

    def guarded(value: T) -> None:
        with _soon(), _at_most(memory), suppress(ResproutError):
            check(value)

    while True:
        chosen = settings(
            max_examples=1000 if SECONDS else examples,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        seed(round_)(chosen(given(strategy)(guarded)))()
        round_ += 1
        if time.monotonic() >= give_up:
            return


@contextmanager
def _soon() -> Iterator[None]:
    def hung(*_: object) -> None:
        raise TimeoutError(f"no end after {HANGS_AFTER_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(HANGS_AFTER_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _at_most(memory: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
