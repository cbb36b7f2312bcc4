"""Lines that say how far work is can be read back, whoever prints them."""

from __future__ import annotations

import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from resprout.progress import RESUMPTION, Progress, parse, print_lines


class _Slow(io.StringIO):
    """A stream in which another thread gets its turn between any two writes."""

    def write(self, text: str) -> int:
        written = super().write(text)
        time.sleep(0.001)
        return written


def test_threads_that_share_a_report_never_mix_their_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, report = _Slow(), print_lines(every_seconds=0)
    monkeypatch.setattr(sys, "stdout", stream)
    told = [Progress("teacher", done, 40, "bytes") for done in range(1, 41)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(report, told))
    lines = [parse(line) for line in stream.getvalue().splitlines()]
    assert sorted(line.done for line in lines if line) == list(range(1, 41))
    assert None not in lines


def test_work_that_goes_on_says_so_and_work_that_begins_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    report = print_lines()
    report(Progress("dreams", 0, 8, "iterations", resumed=True))
    report(Progress("recovery", 31, 120, "epochs", resumed=True))

    lines = capsys.readouterr().out.splitlines()

    assert [line for line in lines if RESUMPTION.search(line)] == ["goes on from epoch 31 of 120"]
