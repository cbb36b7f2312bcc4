"""The benchmark of other dreams keeps what it measured, and only dreams differ between its cases."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from resprout.types import DreamSet


@pytest.fixture(scope="module")
def hard_cases(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmarks/hard_cases.py")


def test_every_cell_is_found_again(hard_cases: ModuleType, tmp_path: Path) -> None:
    teacher = Path(__file__).parents[2] / "examples/resnet20-cifar10/teacher"
    setting, path = hard_cases.Setting("resnet20", teacher, tmp_path, 1), tmp_path / "cells.json"
    cells = [
        {"case": case, "seed": seed, "top1": 80.0} for case, seed in itertools.product(("default", "aware"), (0, 1))
    ]
    for cell in reversed(cells):
        hard_cases.keep(path, setting, 0.9, cell)
    assert list(hard_cases.measured(path, setting)) == cells


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
    assert DreamSet(images.detach().half(), torch.arange(4), 0, 10).num_training == 4
