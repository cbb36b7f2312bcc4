"""The picture of what a point of accuracy costs holds against each other what can be."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def plots(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmarks/plots.py")


def document(capability: str, pruning: str, *cells: tuple[float, float]) -> dict[str, Any]:
    found = [{"row": "ours", "sparsity": sparsity, "seed": 0, "top1": 90.0, "seconds": s} for sparsity, s in cells]
    return {"num_images": 1024, "machine": {"capability": capability}, "pruning": pruning, "cells": found}


def test_seconds_of_another_processor_are_taken_by_what_the_same_work_takes_on_both(plots: ModuleType) -> None:
    here = [document("AVX512", "global_magnitude", (0.75, 100.0), (0.9, 50.0)), document("AVX512", "lamp", (0.9, 60.0))]
    there = [
        document("AVX2", "global_magnitude", (0.75, 300.0)),
        document("AVX2", "optimal_brain", (0.75, 330.0), (0.9, 400.0)),
    ]
    points = plots.points(plots.in_time_of([*here, *there], "AVX512"))
    assert {(point.criterion, point.sparsity): point.seconds for point in points} == {
        ("global L1", 0.75): 100.0,
        ("global L1", 0.9): 50.0,
        ("LAMP", 0.9): 60.0,
        ("default", 0.75): pytest.approx(110.0),
    }
