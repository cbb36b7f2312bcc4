"""Figures as KFP shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def log(metrics: Any, figures: Mapping[str, float]) -> None:
    """Log figures, also as the artifact's file, without which KFP's UI has an error where its preview would be."""
    for name, value in figures.items():
        metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(dict(figures), indent=1) + "\n")
