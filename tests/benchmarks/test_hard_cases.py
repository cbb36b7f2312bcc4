"""The benchmark of other dreams keeps what it measured, and its own parts do what they are for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def hard_cases(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmarks/hard_cases.py")


def test_every_cell_is_found_again_and_none_of_another_teacher(hard_cases: ModuleType, tmp_path: Path) -> None:
    teacher = Path(__file__).parents[2] / "examples/resnet20-cifar10/teacher"
    setting, path = hard_cases.Setting("resnet20", teacher, tmp_path, 1), tmp_path / "cells.json"
    cells = [{"case": case, "seed": seed, "top1": 80.0} for case in ("default", "fresh") for seed in (0, 1)]
    for cell in reversed(cells):
        hard_cases.keep(path, hard_cases.read(path, setting), cell)
    assert hard_cases.read(path, setting)["cells"] == cells

    path.write_text(json.dumps(hard_cases.read(path, setting) | {"teacher": "another's"}))
    assert hard_cases.read(path, setting)["cells"] == []


def test_every_case_has_words_in_the_table(hard_cases: ModuleType, script: Callable[[str], ModuleType]) -> None:
    assert list(hard_cases.CASES) == list(script("benchmarks/tables.py").HARD_CASES)


def test_features_that_lie_together_are_less_uniform(hard_cases: ModuleType) -> None:
    apart = torch.eye(8)
    together = apart + 2
    assert hard_cases._uniformity(apart) == pytest.approx(-4)  # all of them at a squared distance of 2
    assert hard_cases._uniformity(together) > -1


def test_a_generator_gives_pixels_that_can_be(hard_cases: ModuleType) -> None:
    lower, upper = torch.full((1, 3, 1, 1), -2.0), torch.full((1, 3, 1, 1), 3.0)
    images = hard_cases.Generator(10, lower, upper, width=8)(100 * torch.randn(4, 128), torch.arange(4))
    assert images.shape == (4, 3, 32, 32)
    assert -2 <= images.min() <= images.max() <= 3
