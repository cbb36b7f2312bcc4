"""Whether a result keeps what was promised: the recipe's limits against what evaluation measured.

It reads what evaluation measured, not the model: a build can judge what was published without fetching it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from xml.etree import ElementTree

from resprout.errors import GateError
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


def judge(metrics: Mapping[str, float], section: GateSection) -> list[Check]:
    """Hold an evaluation's metrics.json against each limit that is set.

    Args:
        metrics: flat, as `recovered.top1` -> share in [0, 1]; what was not measured is missing.
        section: the recipe's gate section.
    """
    checks = []
    if section.max_top1_drop_points is not None:
        name, limit = "max_top1_drop_points", section.max_top1_drop_points
        if "teacher.top1" in metrics and "recovered.top1" in metrics:
            drop = 100 * (metrics["teacher.top1"] - metrics["recovered.top1"])
            checks.append(_check(name, "at most", limit, drop, " points"))
        else:
            checks.append(_unknown(name, f"at most {limit:g} points"))
    for name, key in (("min_top1", "top1"), ("min_agreement", "agreement"), ("min_sparsity", "sparsity")):
        limit = getattr(section, name)
        if limit is None:
            continue
        measured = metrics.get(f"recovered.{key}")
        checks.append(
            _unknown(name, f"at least {100 * limit:g} %")
            if measured is None
            else _check(name, "at least", 100 * limit, 100 * measured, " %")
        )
    return checks


def passed(checks: Sequence[Check]) -> bool | None:
    """Whether every limit holds; None where one cannot be told and none is broken."""
    if any(check.passed is False for check in checks):
        return False
    return None if any(check.passed is None for check in checks) else True


def require(checks: Sequence[Check]) -> None:
    """Go on only with a result that keeps every limit.

    Raises:
        GateError: it does not, or it cannot be told; every such limit is named.
    """
    if passed(checks):
        return
    broken = [check for check in checks if check.passed is not True]
    raise GateError(
        "the result does not keep what its recipe promises: "
        + "; ".join(f"{check.name}: {check.promised}, measured: {check.measured}" for check in broken),
        now="look at the report; loosen the recipe's gate section, or prune less",
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
    failures, errors = (sum(check.passed is state for check in checks) for state in (False, None))
    counts = {"tests": str(len(checks)), "failures": str(failures), "errors": str(errors)}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": f"resprout gate {name}", **counts})
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": f"gate.{name}", "name": check.name})
        if check.passed is not True:
            kind = "failure" if check.passed is False else "error"
            message = f"promised {check.promised}, measured {check.measured}"
            ElementTree.SubElement(case, kind, {"message": message}).text = message
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _check(name: str, bound: str, limit: float, measured: float, unit: str) -> Check:
    # shares of counted images, of which a binary fraction may be a hair off
    kept = measured <= limit + 1e-9 if bound == "at most" else measured >= limit - 1e-9
    return Check(name, f"{bound} {limit:g}{unit}", f"{measured:.2f}{unit}", kept)


def _unknown(name: str, promised: str) -> Check:
    return Check(name, promised, "nothing: the evaluation had no images that could tell", None)
