"""`resprout scan`: from a run or from two folders to figures, a page and a suggestion."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline import local_kfp, scanning
from pipeline.cli import app
from pipeline.compress import pipeline
from resprout import artifacts, sensitivity
from resprout import recipe as recipe_module
from resprout.recipe import Recipe
from resprout.recipe.form import to_inputs
from resprout.types import DreamSet, Sensitivity, Teacher
from tests.pipeline.warm import forked


def scan(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["scan", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def run_folder(tmp_path: Path, tiny_teacher: Teacher, tiny_dreams: DreamSet) -> Path:
    artifacts.save_teacher(tiny_teacher, tmp_path / "run" / "teacher")
    artifacts.save_dreams(tiny_dreams, tmp_path / "run" / "dreams", input=tiny_teacher.info.input)
    return tmp_path / "run"


QUICK = ("--sparsity", "0.95", "--repair-dreams", "0")


def test_a_run_is_scanned_into_its_own_folder_and_the_worst_layers_are_named(run_folder: Path):
    code, output, _ = scan(run_folder, *QUICK)

    assert code == 0
    found = artifacts.load_sensitivity(run_folder / "sensitivity")
    assert found.sparsities == (0.95,)
    worst = [name for name, _ in found.ranking()[:5]]
    rows = [line.split()[0] for line in output.splitlines() if line.endswith(" %") and ".weight" in line]
    assert rows[-5:] == worst
    suggestion = re.search(r"--set 'pruning.exclude=(\[.*\])'", output)
    assert suggestion is not None
    assert yaml.safe_load(suggestion[1]) == worst
    assert "sensitivity  10/10 prunings" in output
    assert artifacts.digest_of(run_folder / "sensitivity") in output
    assert worst[0] in (run_folder / "sensitivity" / "sensitivity.html").read_text()
    assert scan(run_folder, *QUICK)[0] == 0  # an earlier scan may be replaced


def test_two_folders_do_where_there_is_no_run(run_folder: Path, tmp_path: Path):
    words = (run_folder / "teacher", run_folder / "dreams", *QUICK, "--exclude", "layer*")

    assert scan(*words, "-o", tmp_path / "out")[0] == 0
    assert artifacts.load_sensitivity(tmp_path / "out").layers == ("conv1.weight", "fc.weight")
    code, _, message = scan(*words)
    assert code == 1
    assert "give one with --output" in message


def test_a_scan_names_the_teacher_that_it_read_whatever_lies_there_when_it_ends(
    run_folder: Path, tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
):
    before = artifacts.digest_of(run_folder / "teacher")

    def then_another(*given: Any, **named: Any) -> Sensitivity:
        found = sensitivity.scan(*given, **named)
        artifacts.save_teacher(replace(tiny_teacher, source="another"), run_folder / "teacher")
        return found

    monkeypatch.setattr(scanning, "scan", then_another)
    assert scan(run_folder, *QUICK)[0] == 0
    recorded = artifacts.read_manifest(run_folder / "sensitivity").inputs
    assert [record["sha256"] for record in recorded if record["name"] == "teacher"] == [before]
    assert before in (run_folder / "sensitivity" / "sensitivity.html").read_text()


def test_what_is_no_scan_is_not_replaced(run_folder: Path):
    code, _, message = scan(run_folder, *QUICK, "--output", run_folder / "teacher")

    assert code == 1
    assert "holds something that is no scan" in message
    assert artifacts.load_teacher(run_folder / "teacher")


def test_refusals_say_what_and_what_now(run_folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for words, said in (
        ((tmp_path / "empty",), "it has no teacher and no dreams"),
        ((run_folder, "--sparsity", "1.5"), "sparsities.0: input should be less than 1"),
        ((run_folder, "--exclude", "nothing"), "matches no convolution"),
        ((run_folder / "dreams", run_folder / "teacher", "-o", tmp_path / "out"), "kind"),
    ):
        code, _, message = scan(*words)
        assert code == 1
        assert said in message
    assert not (tmp_path / "out").exists()


class Ended(local_kfp.Listener):
    """Remembers what ended well."""

    def __init__(self) -> None:
        self.tasks: list[local_kfp.Task] = []

    def ended(self, task: local_kfp.Task, exit_code: int) -> None:
        if exit_code == 0:
            self.tasks.append(task)


@pytest.mark.slow
def test_the_pipeline_of_a_scan_goes_from_a_teacher_to_its_layers(tmp_path: Path, tiny_teacher: Teacher):
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    synthesis = {"num_images": 16, "num_held_out": 8, "group_size": 8, "iterations": 2}
    fields = {
        "teacher": {"source": str(tmp_path / "teacher")},
        "synthesis": synthesis,
        "pruning": {"sparsity": 0.9, "exclude": ["layer*"]},
        "placement": {"gpus": 0, "num_shards": 2},
    }
    recipe = recipe_module.validate(Recipe, fields, "test")
    ended = Ended()

    with (tmp_path / "log").open("w") as log:
        done = local_kfp.run(
            pipeline("scan", recipe.placement),
            to_inputs(recipe, "scan"),
            root=tmp_path / "work",
            log=log,
            listener=ended,
            execute=forked(),
        )

    assert done, (tmp_path / "log").read_text()
    before = ["plan", "fetch_teacher", "extract_statistics", "synthesize", "synthesize", "merge_dreams"]
    assert [task.name for task in ended.tasks] == [*before, "scan_sensitivity"]
    found = artifacts.load_sensitivity(ended.tasks[-1].outputs["sensitivity"])
    assert found.layers == ("conv1.weight", "fc.weight")
    assert "fc.weight" in ended.tasks[-1].outputs["page"].read_text()
