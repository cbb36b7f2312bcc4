"""Which of timm's families the tests try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "families.json"
QUICK = 5_000_000
"""Of a class, its smallest network is tried, where it has no more parameters, on images of no more than 64 x 64."""


def pytest_generate_tests(metafunc: Any) -> None:
    """Half of the chosen networks for each of two files, which two processes share."""
    if "family" in metafunc.fixturenames:
        chosen = smallest_of_each_class()[metafunc.module.HALF :: 2]
        metafunc.parametrize("family", chosen, ids=[fields["member"] for fields in chosen])


def smallest_of_each_class() -> list[dict[str, Any]]:
    """One for each class of timm's, smallest networks first."""
    chosen: dict[str, dict[str, Any]] = {}
    for fields in json.loads(RESULT.read_text())["families"]:
        if 0 < fields["size"] <= 64 and fields["parameters"] <= QUICK:
            chosen.setdefault(fields["kind"], fields)
    return list(chosen.values())
