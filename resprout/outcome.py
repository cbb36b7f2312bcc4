"""How a run ended, as a line of JSON in the logs of its last stages.

Kubeflow Pipelines gives nobody an artifact of a run, but each log: whoever follows a run finds its figures there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from resprout import gate
from resprout.gate import Check

_MARK = "outcome"


def told(stage: str, fields: Mapping[str, Any]) -> str:
    """The line that `find` finds: `outcome publish {"address": "s3://…"}`."""
    return f"{_MARK} {stage} {json.dumps(fields)}"


def find(lines: Sequence[str], stage: str) -> dict[str, Any] | None:
    """What a stage told last; None where it told nothing."""
    start = f"{_MARK} {stage} "
    for line in reversed(lines):
        if line.startswith(start):
            try:
                fields: dict[str, Any] = json.loads(line.removeprefix(start))
            except ValueError:
                return None
            return fields
    return None


def of_gate(metrics: Mapping[str, float], summary: Mapping[str, Any], checks: Sequence[Check]) -> str:
    """The figures, the verdict and each limit, for people; then the same for programs.

    Args:
        metrics: an evaluation's, flat: `recovered.top1`.
        summary: its table and its verdict, as the artifact has them beside the metrics.
        checks: each limit.
    """
    figures: dict[str, dict[str, float]] = {}
    for flat, value in metrics.items():
        network, _, measure = flat.partition(".")
        if measure in ("top1", "agreement"):
            figures.setdefault(network, {})[measure] = value
    found = {"figures": figures, "passed": gate.passed(checks), "checks": [asdict(check) for check in checks]}
    lines = [*summary["table"], summary["verdict"], "", gate.as_markdown(checks), told("gate", {**summary, **found})]
    return "\n".join(lines)
