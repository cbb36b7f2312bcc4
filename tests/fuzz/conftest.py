"""Inputs that nobody meant: each ends well or in an error for people, soon, and without eating the machine.

Each target takes few inputs as a rule, the same at each run. For long:

    RESPROUT_FUZZ_SECONDS=600 .venv/bin/python -m pytest tests/fuzz/test_NAME.py
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from resprout import artifacts
from resprout.errors import ResproutError
from resprout.pruning import prune
from resprout.recipe import EvaluationSection, StructuredSection
from resprout.statistics import extract
from resprout.types import (
    DreamGroup,
    DreamSet,
    DreamShard,
    Evaluation,
    LabelledImages,
    Latency,
    ModelCost,
    ModelScore,
    Sensitivity,
    StoredSize,
    Student,
    Teacher,
)

T = TypeVar("T")
Fuzz = Callable[..., None]

SECONDS = float(os.environ.get("RESPROUT_FUZZ_SECONDS", "0"))
HANGS_AFTER_SECONDS = 10


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """`fuzz(strategy, check)`: each value that the strategy draws, given to `check`, which may raise ResproutError."""
    neighbours = [item for item in request.session.items if item.path == request.path]
    return partial(_fuzz, seconds=SECONDS / len(neighbours))


@pytest.fixture
def every_kind(tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet, tmp_path: Path) -> Path:
    """A folder that holds an artifact of each kind, and of a student whose channels are gone, under its name."""
    spec, names = tiny_teacher.info.input, tiny_teacher.info.class_names
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    inputs = artifacts.records({"teacher": tmp_path / "teacher"})
    artifacts.save_student(tiny_student, tmp_path / "student", inputs=inputs, about={"curves": {"loss": [1.0, 0.5]}})
    artifacts.save_student(
        prune(tiny_teacher, StructuredSection(macs_ratio=0.5, round_to=2), seed=0), tmp_path / "shrunk"
    )
    artifacts.save_statistics(extract(tiny_teacher), tmp_path / "statistics", inputs=inputs)
    curves = {"loss": torch.rand(3)}
    dreams = DreamSet(tiny_dreams.images[:8], tiny_dreams.targets[:8], 2, 4, curves)
    artifacts.save_dreams(dreams, tmp_path / "dreams", input=spec, inputs=inputs)
    group = DreamGroup(0, dreams.images, dreams.targets, False, curves)
    artifacts.save_shard(DreamShard([group], 1, 4), tmp_path / "shard", input=spec, inputs=inputs)
    images = LabelledImages(torch.zeros(4, *spec.shape, dtype=torch.uint8), torch.arange(4), names, "tests")
    artifacts.save_test_set(images, tmp_path / "test_set", section=EvaluationSection())
    score = ModelScore("teacher", 1.0, 0.0, 0.5, torch.tensor([[0, 1, 2]]))
    costs, sizes = {"teacher": ModelCost(9, 9, 9, 9, 0.0)}, {"teacher": StoredSize(9, 9)}
    scored = Evaluation([score], costs, 4, 2, names, sizes, Latency(1.0, 8, 5, "cpu"))
    artifacts.save_evaluation(scored, tmp_path / "evaluation", inputs=inputs)
    scan = Sensitivity(("conv1.weight",), (9,), (0.5,), torch.rand(1, 1), torch.rand(1, 1), torch.rand(1, 1), 0.5)
    artifacts.save_sensitivity(scan, tmp_path / "sensitivity", inputs=inputs)
    return tmp_path


def _fuzz(
    strategy: SearchStrategy[T],
    check: Callable[[T], object],
    *,
    examples: int = 50,
    memory: int = 1 << 28,
    seconds: float,
) -> None:
    """Give `check` what the strategy draws.

    Args:
        strategy: of inputs.
        check: may raise ResproutError and nothing else; a hang and a MemoryError are failures, too.
        examples: how many, where nobody asked for a time.
        memory: bytes that one input may take beside what the process holds.
        seconds: how long, where somebody asked for a time: a file's tests share it.
    """
    give_up, round_ = time.monotonic() + seconds, 0

    def guarded(value: T) -> None:
        with _soon(), _at_most(memory), suppress(ResproutError):
            check(value)

    while True:
        chosen = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        seed(round_)(chosen(given(strategy)(guarded)))()
        round_ += 1
        if time.monotonic() >= give_up:
            return


@contextmanager
def _soon() -> Iterator[None]:
    def hung(*_: object) -> None:
        raise TimeoutError(f"no end after {HANGS_AFTER_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(HANGS_AFTER_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _at_most(memory: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
