"""Which of timm's families the tests try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "families.json"
QUICK = 6.0
"""Of a class, the network is tried that took least when all were; it must have taken no longer, in seconds."""


def pytest_generate_tests(metafunc: Any) -> None:
    """Half of the chosen networks for each of two files, which two processes share."""
    if "family" in metafunc.fixturenames:
        chosen = quickest_of_each_class()[metafunc.module.HALF :: 2]
        metafunc.parametrize("family", chosen, ids=[fields["member"] for fields in chosen])


def quickest_of_each_class() -> list[dict[str, Any]]:
    """One for each class of timm's, in their order in the results, smallest networks first."""
    chosen: dict[str, dict[str, Any]] = {}
    for fields in json.loads(RESULT.read_text())["families"]:
        tried = fields["size"] and fields["seconds"] <= QUICK
        if tried and fields["seconds"] < chosen.get(fields["kind"], {"seconds": QUICK + 1})["seconds"]:
            chosen[fields["kind"]] = fields
    return list(chosen.values())
