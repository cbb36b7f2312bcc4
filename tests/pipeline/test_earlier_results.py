"""A run's folder holds the result of the run that was asked for last, or none: nobody takes an earlier one for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from torch import Tensor

from pipeline import command
from pipeline.run_folder import RESULTS, RunFolder
from resprout.types import Teacher
from tests.pipeline.running import write_recipe
from tests.pipeline.test_gate import gate
from tests.pipeline.warm import run_warm

QUICK = {
    "synthesis": {"num_images": 16, "num_held_out": 8, "group_size": 8, "iterations": 2},
    "recovery": {"epochs": 1, "batch_size": 8},
    "gate": {"min_sparsity": 0.1},
}


@pytest.fixture(scope="module")
def _ran(
    tmp_path_factory: pytest.TempPathFactory, _trained: Teacher, _structured_images: tuple[Tensor, Tensor]
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("ran")
    recipe = write_recipe(folder, _trained, _structured_images)
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), **QUICK}))
    exit_code, output = run_warm(recipe, "--output", folder / "run")
    assert exit_code == 0, output
    return recipe, folder / "run"


@pytest.fixture
def ran(_ran: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """(recipe, a run's folder), which a test may do with as it likes."""
    recipe, run = _ran
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("*.sock"))  # of its store, which is gone
    return recipe, tmp_path / "run"


def test_a_result_of_this_recipe_passes(ran: tuple[Path, Path]):
    recipe, run = ran

    assert gate(recipe, run)[0] == 0
    assert gate(recipe, run / "metrics.json")[0] == 0
    assert gate(recipe, run, "--set", "gate.min_sparsity=0.9")[0] == 1, "limits may be others"


def test_a_run_that_is_refused_or_fails_leaves_no_result_that_passes(ran: tuple[Path, Path], tmp_path: Path):
    recipe, _ = ran
    copy = tmp_path / "mine.yaml"
    source = tmp_path / "source"
    fields = yaml.safe_load(recipe.read_text())
    shutil.copytree(fields["teacher"]["source"], source)
    copy.write_text(yaml.safe_dump({**fields, "teacher": {"source": str(source)}}))
    assert run_warm(copy, "--output", tmp_path / "own")[0] == 0
    shutil.rmtree(source)

    exit_code, output = run_warm(copy, "--output", tmp_path / "own")

    assert exit_code == 1
    assert f"that of the run before is in {tmp_path / 'own' / 'earlier'}" in output
    for result in (tmp_path / "own", tmp_path / "own" / "metrics.json"):
        code, _, error = gate(copy, result)
        assert code == 3, error
    assert gate(copy, tmp_path / "own" / "earlier")[0] == 0, "what it is said to be, it is"


def test_the_result_of_another_recipe_is_not_judged(ran: tuple[Path, Path], tmp_path: Path):
    recipe, run = ran
    other = tmp_path / "other.yaml"
    fields = yaml.safe_load(recipe.read_text())
    other.write_text(yaml.safe_dump({**fields, "teacher": {"source": "/nonexistent/new-teacher"}}))

    exit_code, _ = run_warm(other, "--output", run)
    code, _, error = gate(other, run)

    assert exit_code == 1
    assert code == 4
    assert "holds the result of another recipe: teacher.source is" in error
    assert gate(recipe, run)[0] == 0, "a run that was refused for that leaves it as it is"


@pytest.mark.parametrize(
    "damaged", ["metrics.json", "model/weights.safetensors", "evaluation/metrics.json", "recipe.yaml"]
)
def test_what_was_changed_since_is_not_judged(ran: tuple[Path, Path], damaged: str):
    recipe, run = ran
    content = bytearray((run / damaged).read_bytes())
    content[len(content) // 2] ^= 1
    (run / damaged).write_bytes(content)

    code, _, error = gate(recipe, run)

    assert code == 4
    assert f"{damaged} was changed" in error


def test_a_model_beside_the_figures_of_another_is_not_judged(ran: tuple[Path, Path]):
    recipe, run = ran
    shutil.rmtree(run / "model")
    shutil.copytree(run / "repaired", run / "model")

    assert gate(recipe, run)[0] == 4


def test_a_kill_while_results_are_put_in_place_leaves_none(ran: tuple[Path, Path]):
    recipe, run = ran
    (run / RESULTS[0]).unlink()  # is written last

    assert gate(recipe, run)[0] == 3


def test_the_next_run_sets_a_result_aside_and_clears_what_had_none(ran: tuple[Path, Path]):
    recipe, run = ran
    folder = RunFolder(run)
    there = {name for name in RESULTS if (run / name).exists()}

    assert folder.set_aside()
    assert {path.name for path in folder.earlier.iterdir()} == there
    assert not any((run / name).exists() for name in RESULTS)
    (run / "model").mkdir()
    folder.log.write_text("why it failed\n")
    assert not folder.set_aside()
    assert not (run / "model").exists()
    assert folder.log.exists()
    assert folder.earlier.exists()
    folder.refuse_foreign(command.load(recipe, ["seed=7"]))
