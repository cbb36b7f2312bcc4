"""The report's section on `sparsity: auto`: what was tried, what was promised, what was chosen."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from resprout.report import render
from resprout.report.choice import MAX_ROWS, Tried, tried_for
from resprout.types import SparsityChoice, Trial

MakeRun = Callable[..., dict[str, Any]]
TRIALS = (
    Trial(0.9, 0.5, 1.5),
    Trial(0.85, 0.95, 0.1),
    Trial(0.875, 0.7, 0.6),
    Trial(0.86, 0.9, 0.2),
)
CHOICE = SparsityChoice(0.86, 0.9, TRIALS)


def shown(choice: SparsityChoice) -> Tried:
    tried = tried_for(choice)
    assert tried is not None
    return tried


def test_the_report_has_the_section_only_where_a_sparsity_was_chosen(make_run: MakeRun) -> None:
    run = make_run()
    assert "Why this sparsity" not in render(**run)
    assert render(**run) == render(**run, choice=None)
    page = render(**run, choice=CHOICE)
    section = re.search(r"<h2>Why this sparsity</h2>.*?</section>", page, re.DOTALL)
    assert section is not None
    words = section[0].replace("\N{NO-BREAK SPACE}", " ")
    assert "leave 90 % of the answers" in words
    assert (
        "86.0 % keeps that, with 90.0 % of the answers equal; at 87.5 %: 70.0 %, which is less than promised." in words
    )
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', words)
    assert rows == [
        ("90.0 %", "50.0 %", "1.5"),
        ("87.5 %", "70.0 %", "0.6"),
        ("86.0 %, chosen", "90.0 %", "0.2"),
        ("85.0 %", "95.0 %", "0.1"),
    ]


def test_the_curve_runs_through_the_trials_the_promise_is_level_and_the_choice_upright() -> None:
    curve, promise, chosen = shown(CHOICE).chart.lines
    line = re.match(r"M[^M]*", curve.path)
    assert line is not None
    points = [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", line[0])]
    assert len(points) == 4, "one per trial"
    assert points == sorted(points), "agreement falls to the right: y grows downwards"
    level = re.fullmatch(r"M0 ([\d.]+)H100", promise.path)
    upright = re.fullmatch(r"M([\d.]+) 0V100", chosen.path)
    assert level is not None
    assert upright is not None
    assert points[1] == (float(upright[1]), float(level[1])), "the chosen trial keeps the promise to the point"
    assert points[0][1] < float(level[1]) < points[2][1]
    assert (promise.last, chosen.last) == ("90 %", "86.0 %")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (SparsityChoice(0.875, 0.7, TRIALS), "at 90.0 %: 50.0 %, which is less than promised."),
        (SparsityChoice(0.9, 0.5, TRIALS), "nothing higher was tried."),
        (SparsityChoice(0.9, 0.5, TRIALS[:1]), "90.0 % keeps that"),
    ],
    ids=["broken above", "nothing above", "a single trial"],
)
def test_what_was_found_is_said_in_words(choice: SparsityChoice, said: str) -> None:
    tried = shown(choice)
    assert said in tried.found.replace("\N{NO-BREAK SPACE}", " ")
    assert tried.found in tried.chart.summary


def test_many_trials_are_shown_on_demand_and_a_promise_is_not_rounded_away(make_run: MakeRun) -> None:
    many = tuple(Trial(0.5 + index / 200, 1 - index / 1000, 0.1) for index in range(MAX_ROWS + 1))
    choice = SparsityChoice(many[0].sparsity, 0.9995, many)
    assert shown(choice).promised == "99.95 %"
    assert f"All {MAX_ROWS + 1} that were tried" in render(**make_run(), choice=choice)
    assert "that were tried" not in render(**make_run(), choice=replace(choice, trials=many[:MAX_ROWS]))
