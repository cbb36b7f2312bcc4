"""The table of networks that lost whole channels has a column for each device and batch that was timed."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def cell(seed: int, latency_ratio: dict[str, dict[str, float]]) -> dict[str, Any]:
    size = {"size_bytes": 100, "compressed_size_bytes": 80}
    return {
        "importance": "taylor", "macs_ratio": 0.5, "seed": seed, "start": "repaired",
        "top1": {"dreams": 60.0, "reconstruction": 80.0, "distilled_repaired": 86.0 + 2 * seed},
        "macs": [400, 200], "parameters": [1000, 600], "latency_ratio": latency_ratio,
        "size": [size, {"size_bytes": 50, "compressed_size_bytes": 20}],
    }  # fmt: skip


def document(gpu: str, cells: list[dict[str, Any]], **synthesis: int) -> dict[str, Any]:
    machine = {"cores": 16, "processor": "a processor", "capability": "AVX512", "gpu": gpu, "torch": "2.14.1"}
    recipe = {"synthesis": {"iterations": 50, "coarsest": 1} | synthesis, "recovery": {"epochs": 40}}
    return {
        "name": "resnet18", "teacher_top1": 95.0, "num_images": 1024, "threads": 1, "machine": machine,
        "recipe": recipe, "cells": cells,
    }  # fmt: skip


def test_where_there_is_a_gpu_its_times_stand_behind_those_of_the_processor(tables: ModuleType) -> None:
    cells = [
        cell(0, {"cuda": {"1": 1.11, "64": 0.4}, "cpu": {"1": 0.8, "64": 1.003}}),
        cell(1, {"cuda": {"1": 1.01, "64": 0.6}, "cpu": {"1": 0.7, "64": 1.003}}),
    ]
    head, _, columns, rule, row, *_ = tables.structured(document("a GPU", cells)).splitlines()
    assert columns.split(" | ")[-4:] == ["CPU, batch 1", "CPU, batch 64", "GPU, batch 1", "GPU, batch 64 |"]
    assert (
        row
        == "| 0.50 | taylor | 0.60 | 60.00 | 80.00 | 87.00 ± 1.41 | 0.50 | 0.25 | 0.75 | 1.00 | 1.06 (slower) | 0.50 |"
    )
    assert rule.count("|") == columns.count("|") == row.count("|")
    assert "1,024 dreams, 40 epochs, 2 seeds" in head
    assert "a GPU" in head


def test_without_a_gpu_there_is_no_column_for_one_and_unusual_dreams_are_told(tables: ModuleType) -> None:
    cells = [cell(0, {"cpu": {"1": 0.82, "64": 1.2}})]
    head, _, columns, rule, row, *_ = tables.structured(
        document("none", cells, coarsest=4, iterations=100)
    ).splitlines()
    assert columns.endswith("| bzip2 | CPU, batch 1 | CPU, batch 64 |")
    assert row.endswith("| 0.25 | 0.82 | 1.20 (slower) |")
    assert rule.count("|") == columns.count("|") == row.count("|")
    assert "1,024 plain dreams of 100 iterations" in head
