"""Figures as KFP shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def log(metrics: Any, figures: Mapping[str, float]) -> None:
    """Log figures, also as the artifact's file, without which KFP's UI has an error where its preview would be.

    Those that are no numbers are left out: KFP cannot store them, and would fail a stage that did its work.
    """
    finite = {name: value for name, value in figures.items() if math.isfinite(value)}
    for name, value in finite.items():
        metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(finite, indent=1) + "\n")
