"""JUnit XML, which CI systems show as test results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One test case.

    Args:
        name: what was asked of it.
        outcome: an `error` is one that could not be told.
        message: what there is to say of one that did not pass.
    """

    name: str
    outcome: Literal["passed", "failure", "error", "skipped"] = "passed"
    message: str = ""


def as_junit(suite: str, classname: str, cases: Sequence[Case]) -> str:
    """The XML of one suite."""
    outcomes = [case.outcome for case in cases]
    counts = {
        "tests": str(len(cases)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
        "skipped": str(outcomes.count("skipped")),
    }
    root = ElementTree.Element("testsuites", {name: count for name, count in counts.items() if name != "skipped"})
    element = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for case in cases:
        row = ElementTree.SubElement(element, "testcase", {"classname": classname, "name": case.name})
        if case.outcome != "passed":
            first_line = case.message.partition("\n")[0]
            ElementTree.SubElement(row, case.outcome, {"message": first_line}).text = case.message
    ElementTree.indent(root)
    return _NO_XML.sub("\ufffd", ElementTree.tostring(root, encoding="unicode", xml_declaration=True)) + "\n"
