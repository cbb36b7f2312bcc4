"""Whether a result keeps what was promised: the recipe's limits against what evaluation measured.

It reads what evaluation measured, not the model: a build can judge what was published without fetching it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Literal

from resprout import junit
from resprout.errors import GateError
from resprout.junit import Case
from resprout.recipe import GateSection


@dataclass(frozen=True)
class Check:
    """One limit.

    Args:
        name: the gate section's field.
        promised: the limit, in words.
        measured: what was measured, in words; why nothing was, where it cannot be told.
        passed: whether it holds; None where it cannot be told.
    """

    name: str
    promised: str
    measured: str
    passed: bool | None


@dataclass(frozen=True)
class Promise:
    """What a field of the gate section limits, and how people read it.

    Args:
        name: the field.
        bound: `at most` or `at least`.
        unit: after the number, with its blank.
        measured: metrics -> what was measured, in the field's unit; KeyError where it was not.
        missing: why it was not.
        scale: from the field's unit to the one that people read.
        digits: after the point.
    """

    name: str
    bound: Literal["at most", "at least"]
    unit: str
    measured: Callable[[Mapping[str, float]], float]
    missing: str = "the evaluation had no images that could tell"
    scale: float = 1
    digits: int = 2


class _InDoubtError(Exception):
    """What was measured says nothing, since the teacher's own accuracy does not."""


def _top1_drop_points(metrics: Mapping[str, float]) -> float:
    if metrics.get("teacher.in_doubt"):
        raise _InDoubtError
    return 100 * (metrics["teacher.top1"] - metrics["recovered.top1"])


def _mib(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda metrics: metrics[name] / 2**20


_UNSIZED = "the evaluation is from before sizes were measured"
_IN_DOUBT = "the teacher itself is no better than chance on the test set, or its classes are in another order"
_UNTIMED = "evaluation.measure_latency was off"

PROMISES = (
    Promise("max_top1_drop_points", "at most", " points", _top1_drop_points),
    Promise("min_top1", "at least", " %", itemgetter("recovered.top1"), scale=100),
    Promise("min_agreement", "at least", " %", itemgetter("recovered.agreement"), scale=100),
    Promise("min_sparsity", "at least", " %", itemgetter("recovered.sparsity"), scale=100),
    Promise("max_size_mib", "at most", " MiB", _mib("recovered.size_bytes"), _UNSIZED, digits=3),
    Promise("max_compressed_size_mib", "at most", " MiB", _mib("recovered.compressed_size_bytes"), _UNSIZED, digits=3),
    Promise(
        "max_latency_ratio",
        "at most",
        " times the teacher's",
        itemgetter("recovered.latency_ratio"),
        _UNTIMED,
        digits=3,
    ),
)


def judge(metrics: Mapping[str, float], section: GateSection) -> list[Check]:
    """Hold an evaluation's metrics.json against each limit that is set.

    Args:
        metrics: flat, as `recovered.top1` -> share in [0, 1]; what was not measured is missing.
        section: the recipe's gate section.
    """
    limits = ((promise, getattr(section, promise.name)) for promise in PROMISES)
    return [_check(promise, limit, metrics) for promise, limit in limits if limit is not None]


def passed(checks: Sequence[Check]) -> bool | None:
    """Whether every limit holds; None where one cannot be told and none is broken."""
    if any(check.passed is False for check in checks):
        return False
    return None if any(check.passed is None for check in checks) else True


def require(checks: Sequence[Check], *, verdict: str = "") -> None:
    """Go on only with a result that keeps every limit.

    Args:
        checks: each limit.
        verdict: the evaluation's, which is the reason that a person is given.

    Raises:
        GateError: it does not, or it cannot be told; every such limit is named.
    """
    if passed(checks):
        return
    broken = [check for check in checks if check.passed is not True]
    raise GateError(
        "the result does not keep what its recipe promises: "
        + "; ".join(f"{check.name}: {check.promised}, measured: {check.measured}" for check in broken),
        why=verdict,
        now="look at the report; loosen the recipe's gate section, or prune in another way",
    )


def as_markdown(checks: Sequence[Check]) -> str:
    """A table for people: a verdict first, then each limit."""
    verdict = {True: "Gate passed", False: "Gate failed", None: "Gate: cannot tell"}[passed(checks)]
    if not checks:
        return "**Gate passed**: the recipe sets no limit.\n"
    words = {True: "kept", False: "**broken**", None: "**cannot tell**"}
    rows = [f"| `{it.name}` | {it.promised} | {it.measured} | {words[it.passed]} |" for it in checks]
    return "\n".join([f"**{verdict}**", "", "| limit | promised | measured | |", "|---|---|---|---|", *rows, ""])


def as_json(checks: Sequence[Check]) -> str:
    """For programs: `{passed, checks}`; `passed` is null where it cannot be told."""
    return json.dumps({"passed": passed(checks), "checks": [asdict(check) for check in checks]}, indent=2) + "\n"


def as_junit(checks: Sequence[Check], name: str) -> str:
    """For CI systems: JUnit XML with a test case per limit; one that cannot be told is an error."""
    outcomes: dict[bool | None, Literal["passed", "failure", "error"]] = {
        True: "passed",
        False: "failure",
        None: "error",
    }
    cases = [
        Case(check.name, outcomes[check.passed], f"promised {check.promised}, measured {check.measured}")
        for check in checks
    ]
    return junit.as_junit(f"resprout gate {name}", f"gate.{name}", cases)


def _check(promise: Promise, limit: float, metrics: Mapping[str, float]) -> Check:
    limit *= promise.scale
    promised = f"{promise.bound} {limit:g}{promise.unit}"
    try:
        measured = promise.scale * promise.measured(metrics)
    except KeyError:
        return Check(promise.name, promised, f"nothing: {promise.missing}", None)
    except _InDoubtError:
        return Check(promise.name, promised, f"nothing: {_IN_DOUBT}", None)
    # shares of counted images, of which a binary fraction may be a hair off
    kept = measured <= limit + 1e-9 if promise.bound == "at most" else measured >= limit - 1e-9
    return Check(promise.name, promised, f"{measured:.{promise.digits}f}{promise.unit}", kept)
