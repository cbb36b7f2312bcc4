"""Whether a result keeps what was promised."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resprout import gate
from resprout.errors import GateError
from resprout.recipe import GateSection

METRICS = {
    "teacher.top1": 0.922,
    "recovered.top1": 0.902,
    "recovered.agreement": 0.8828,
    "recovered.sparsity": 0.75,
    "recovered.size_bytes": 3 * 2**19,
    "recovered.compressed_size_bytes": 2**19,
    "recovered.latency_ratio": 1.05,
}
EVERYTHING = GateSection(
    max_top1_drop_points=2.0,
    min_top1=0.9,
    min_agreement=0.88,
    min_sparsity=0.75,
    max_size_mib=1.5,
    max_compressed_size_mib=0.5,
    max_latency_ratio=1.05,
)


def test_every_field_of_the_gate_section_is_a_promise_that_is_judged():
    assert [promise.name for promise in gate.PROMISES] == list(GateSection.model_fields)


def test_limits_that_are_just_kept_are_kept():
    checks = gate.judge(METRICS, EVERYTHING)
    assert [(check.name, check.passed) for check in checks] == [
        ("max_top1_drop_points", True),
        ("min_top1", True),
        ("min_agreement", True),
        ("min_sparsity", True),
        ("max_size_mib", True),
        ("max_compressed_size_mib", True),
        ("max_latency_ratio", True),
    ]
    assert gate.passed(checks) is True
    gate.require(checks)


@pytest.mark.parametrize(
    ("change", "promised", "measured"),
    [
        ({"max_top1_drop_points": 1.9}, "at most 1.9 points", "2.00 points"),
        ({"min_top1": 0.91}, "at least 91 %", "90.20 %"),
        ({"min_agreement": 0.9}, "at least 90 %", "88.28 %"),
        ({"min_sparsity": 0.8}, "at least 80 %", "75.00 %"),
        ({"max_size_mib": 1.499}, "at most 1.499 MiB", "1.500 MiB"),
        ({"max_compressed_size_mib": 0.25}, "at most 0.25 MiB", "0.500 MiB"),
        ({"max_latency_ratio": 1}, "at most 1 times the teacher's", "1.050 times the teacher's"),
    ],
)
def test_a_broken_limit_is_told_and_stops(change: dict[str, float], promised: str, measured: str):
    checks = gate.judge(METRICS, GateSection(**{**EVERYTHING.model_dump(), **change}))
    (broken,) = [check for check in checks if not check.passed]
    assert (broken.name, broken.promised, broken.measured) == (*change, promised, measured)
    assert gate.passed(checks) is False
    with pytest.raises(GateError, match=f"{broken.name}: {promised}, measured: {measured}"):
        gate.require(checks)


def test_the_verdict_is_the_reason_that_a_refused_result_gives():
    checks = gate.judge({**METRICS, "teacher.in_doubt": 1}, GateSection(max_top1_drop_points=2.0))
    with pytest.raises(GateError, match="max_top1_drop_points: at most 2 points, measured: nothing") as refused:
        gate.require(checks, verdict="The teacher itself is right on 25.0 %.")
    assert refused.value.why == "The teacher itself is right on 25.0 %."


def test_without_a_test_set_accuracy_cannot_be_told_and_does_not_pass():
    measured = {name: value for name, value in METRICS.items() if not name.endswith("top1")}
    checks = gate.judge(measured, EVERYTHING)
    assert [check.name for check in checks if check.passed is None] == ["max_top1_drop_points", "min_top1"]
    assert gate.passed(checks) is None
    with pytest.raises(GateError, match=r"max_top1_drop_points.*nothing.*min_top1"):
        gate.require(checks)


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ("max_size_mib", "nothing: the evaluation is from before sizes were measured"),
        ("max_compressed_size_mib", "nothing: the evaluation is from before sizes were measured"),
        ("max_latency_ratio", "nothing: evaluation.measure_latency was off"),
    ],
)
def test_a_size_or_a_latency_that_was_not_measured_cannot_be_told_and_says_why(limit: str, why: str):
    (check,) = gate.judge({"recovered.top1": 0.9}, GateSection(**{limit: 2.0}))
    assert (check.name, check.measured, check.passed) == (limit, why, None)


def test_a_broken_limit_counts_more_than_one_that_cannot_be_told():
    checks = gate.judge({"recovered.agreement": 0.1}, GateSection(min_agreement=0.5, min_top1=0.5))
    assert gate.passed(checks) is False


def test_no_limit_is_no_obstacle():
    assert gate.judge(METRICS, GateSection()) == []
    assert gate.passed([]) is True
    assert "sets no limit" in gate.as_markdown([])


@given(top1=st.floats(0, 1), teacher=st.floats(0, 1), limit=st.floats(0, 100))
def test_a_drop_is_in_points(top1: float, teacher: float, limit: float):
    (check,) = gate.judge({"teacher.top1": teacher, "recovered.top1": top1}, GateSection(max_top1_drop_points=limit))
    assert check.passed is (100 * (teacher - top1) <= limit + 1e-9)


def test_junit_has_a_case_per_limit_and_counts_them():
    section = GateSection(max_top1_drop_points=1.0, min_agreement=0.5, min_top1=0.5)
    metrics = {"teacher.top1": 0.9, "recovered.top1": 0.8}
    suites = ElementTree.fromstring(gate.as_junit(gate.judge(metrics, section), 'a & "b"'))
    assert suites.attrib == {"tests": "3", "failures": "1", "errors": "1"}
    (suite,) = suites
    assert suite.attrib["name"] == 'resprout gate a & "b"'
    found = {case.attrib["name"]: [child.tag for child in case] for case in suite}
    assert found == {"max_top1_drop_points": ["failure"], "min_top1": [], "min_agreement": ["error"]}


def test_json_reads_back():
    read = json.loads(gate.as_json(gate.judge(METRICS, EVERYTHING)))
    assert read["passed"] is True
    assert read["checks"][0] == {
        "name": "max_top1_drop_points",
        "promised": "at most 2 points",
        "measured": "2.00 points",
        "passed": True,
    }


def test_markdown_is_a_table():
    lines = gate.as_markdown(gate.judge(METRICS, EVERYTHING)).splitlines()
    assert lines[0] == "**Gate passed**"
    assert lines[4] == "| `max_top1_drop_points` | at most 2 points | 2.00 points | kept |"
    assert all(line.count("|") == 5 for line in lines[2:])
