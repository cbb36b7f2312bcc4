"""A folder that holds a teacher and what the first stage found in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import dsl

from components.extract_statistics import extract_statistics
from resprout import artifacts
from resprout.types import Teacher
from tests.components.stages import Stage


@pytest.fixture
def stage(tmp_path: Path, tiny_teacher: Teacher) -> Stage:
    made = Stage(tmp_path)
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    extract_statistics.python_func(
        teacher=made(dsl.Model, "teacher"),
        digests=made.digests("teacher"),
        num_dreams=8,
        statistics=made(dsl.Artifact, "statistics"),
    )
    return made
