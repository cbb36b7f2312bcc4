"""What several tests of runs share: one that nothing disturbed, to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from resprout.types import Teacher
from tests.pipeline.running import run, write_recipe


@pytest.fixture(scope="session")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory, _trained: Teacher, _structured_images: tuple[Tensor, Tensor]
) -> tuple[Path, Path, str]:
    """(recipe, folder of runs, output) of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    path = write_recipe(folder, _trained, _structured_images)
    exit_code, output = run(path, "--runs", folder / "runs")
    assert exit_code == 0, output
    return path, folder / "runs", output
