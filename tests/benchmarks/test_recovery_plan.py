"""The recovery benchmark's plans: what is done when, and what becomes of what fails."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from resprout import artifacts, recipe
from resprout.errors import RecipeError
from resprout.types import Teacher


@pytest.fixture(scope="module")
def recovery(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmarks/recovery.py")


@pytest.fixture
def lines(recovery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A plan of three lines, of which the first and the last are of one setting; its teacher is not there yet."""
    monkeypatch.setattr(recovery.read.__globals__["Setting"], "results", property(_results))
    plan = tmp_path / "plan.txt"
    of_teacher = f"--name tiny --teacher {tmp_path / 'teacher'} --data {tmp_path}"
    plan.write_text(
        f"{of_teacher} --sparsities 0.5 --rows none ours --seeds 1  # the most urgent\n\n"
        f"{of_teacher} --pruning lamp --rounds 2 --sparsities 0.9 --rows ours --seeds 1\n"
        f"{of_teacher} --sparsities 0.5 --rows none --seeds 2\n"
    )
    return recovery.lines_of(recovery.parse(["--plan", str(plan)]))


def _results(setting: Any) -> Path:
    return setting.data / f"{setting.pruning}-{setting.rounds}.json"


def _names(work: Any) -> list[tuple[Any, ...]]:
    return [(job[0], *job[2:]) for job, _ in work.ready()]


def test_cells_wait_for_their_teacher_and_their_dreams(
    recovery: ModuleType, lines: list[Any], tiny_teacher: Teacher, tmp_path: Path
) -> None:
    work = recovery.Work(lines)
    assert work.waits()
    assert not list(work.ready())

    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    assert not work.waits()
    assert _names(work)[0] == ("top1",)
    assert not any(name[0] == "cell" for name in _names(work))

    work.finish(("top1", tmp_path / "teacher"), 90.0)
    assert ("cell", "none", 0.5, 0) in _names(work)
    assert ("cell", "ours", 0.5, 0) not in _names(work)

    dreams = next(job for job, _ in work.ready() if job[0] == "dreams")
    work.finish(dreams, 1.0)
    assert [name for name in _names(work) if name[0] == "cell"] == [
        ("cell", "none", 0.5, 0),
        ("cell", "ours", 0.5, 0),
        ("cell", "ours", 0.9, 0),
        ("cell", "none", 0.5, 0),
        ("cell", "none", 0.5, 1),
    ]


def test_lines_of_one_setting_share_its_results_and_what_failed_is_left(
    recovery: ModuleType, lines: list[Any], tiny_teacher: Teacher, tmp_path: Path
) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    work = recovery.Work(lines)
    assert work.ready()
    list(work.ready())
    work.finish(("top1", tmp_path / "teacher"), 90.0)
    for seed in (0, 1):
        cell = {"row": "none", "sparsity": 0.5, "seed": seed, "top1": 80.0, "seconds": 0.1}
        work.finish(("cell", lines[2].setting.results, "none", 0.5, seed), cell)
    written = json.loads(lines[0].setting.results.read_text())
    assert written["teacher_top1"] == 90.0
    assert [cell["seed"] for cell in written["cells"]] == [0, 1]
    for job in [job for job, _ in work.ready()]:
        work.finish(job, RuntimeError("no"))
    for job in [job for job, _ in work.ready()]:  # cells whose dreams could not be made
        work.finish(job, RuntimeError("no"))
    assert not list(work.ready())


def test_a_process_that_failed_is_replaced_and_the_others_go_on(recovery: ModuleType) -> None:
    slots = recovery.Slots(2)
    slots.start(("good",), (operator.add, 1, 2))
    slots.start(("bad",), (operator.truediv, 1, 0))
    found: dict[Any, Any] = {}
    while slots.jobs():
        found |= dict(slots.finished())
    assert found[("good",)] == 3
    assert isinstance(found[("bad",)], ZeroDivisionError)
    slots.start(("refused",), (recipe.section, "pruning", {"method": "nonsense"}))
    slots.start(("after",), (operator.add, 3, 4))
    assert slots.free() == 0
    while slots.jobs():
        found |= dict(slots.finished())
    assert isinstance(found[("refused",)], RecipeError)
    assert found[("after",)] == 7
    slots.close()


def test_what_another_teacher_gave_is_not_added_to(
    recovery: ModuleType, lines: list[Any], tiny_teacher: Teacher, tmp_path: Path
) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    setting = lines[0].setting
    cell = {"row": "none", "sparsity": 0.5, "seed": 0, "top1": 80.0, "seconds": 0.1}
    recovery.write(setting, recovery.read(setting) | {"cells": [cell]})
    assert recovery.read(setting)["cells"] == [cell]

    recovery.write(setting, recovery.read(setting) | {"teacher": "another's"})
    assert recovery.read(setting)["cells"] == []
