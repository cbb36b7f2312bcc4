"""The command line's words: help, recipes, models, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from resprout import __version__, artifacts
from resprout.pruning import prune
from resprout.recipe import GlobalMagnitudeSection, Recipe, SemiStructuredSection
from resprout.types import Teacher

ROOT = Path(__file__).parents[2]


def invoke(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("teacher: {source: nowhere}\n")
    return path


def test_the_version_is_told():
    assert invoke("--version") == (0, f"resprout {__version__}\n", "")


def test_help_names_the_exit_codes_and_starts_without_torch_and_kfp():
    script = "import sys, pipeline.cli; print([name for name in ('torch', 'kfp', 'pydantic') if name in sys.modules])"
    imported = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert imported.stdout == "[]\n"
    assert "130 interrupted" in " ".join(invoke("--help")[1].split())
    assert "130 interrupted" in " ".join(invoke("run", "--help")[1].split())


def test_what_computes_nothing_starts_without_torch():
    commands = "pipeline.cluster.command, pipeline.command, pipeline.gating, pipeline.publications"
    script = f"import sys, {commands}; print('torch' in sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert imported.stdout == "False\n"


def test_list_shows_each_recipe_with_what_it_gives():
    _, output, _ = invoke("recipe", "list")

    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        assert f"{path.relative_to(ROOT / 'recipes').with_suffix('')} " in output
        assert str(path) in output


def test_show_fills_in_defaults_and_takes_changes(recipe: Path):
    code, output, _ = invoke(
        "recipe",
        "show",
        recipe,
        "--set",
        "recovery.epochs=7",
        "--set",
        "seed=3",
        "--set",
        "teacher.input.shape=[3,8,8]",
    )

    assert code == 0
    assert "epochs: 7" in output
    assert "seed: 3" in output
    assert "temperature: 16.0" in output
    assert "num_images: 1024" in output


def test_a_method_can_be_set_where_the_recipe_leaves_the_section_out(recipe: Path):
    code, output, _ = invoke(
        "recipe", "show", recipe, "--set", "pruning.method=random", "--set", "synthesis.method=paper"
    )

    assert code == 0
    assert "method: random" in output
    assert "iterations" not in output  # deep_inversion's


def test_explain_gives_meaning_default_and_limits():
    _, output, _ = invoke("recipe", "explain", "recovery.temperature")

    assert output.startswith("recovery.temperature (distillation) = 16.0, above 0\n    Softens both logits")
    assert output.count("recovery.") == 1


def test_explain_tells_once_what_many_methods_mean_alike():
    _, output, _ = invoke("recipe", "explain", "pruning.rounds")

    assert output.startswith("pruning.rounds (global_magnitude, layer_magnitude, lamp, ")
    assert output.count("In how many rounds to prune") == 1


def test_explain_alone_gives_every_field():
    _, output, _ = invoke("recipe", "explain")

    schema = Recipe.model_json_schema()
    sections = [schema, *(part for name, part in schema["$defs"].items())]
    fields = {name for section in sections for name in section["properties"]} - {"method"}
    assert {name for name in fields if f"{name} " not in output and f"{name}\n" not in output} == set()


def test_explain_suggests_the_field_that_was_meant():
    code, _, message = invoke("recipe", "explain", "recovery.temprature")

    assert code == 1
    assert message.startswith("error: a recipe has no field recovery.temprature; did you mean recovery.temperature?")


def test_schema_is_json_schema():
    assert json.loads(invoke("recipe", "schema")[1])["properties"]["teacher"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("recovery.learning_rate=-1", "recovery.learning_rate: "),
        ("recovery.epoch=3", "did you mean epochs?"),
        ("recovery.epochs", "not of the form section.field=value"),
        ("nonsense.epochs=3", "nonsense: no such field"),
    ],
)
def test_a_change_that_is_no_good_is_refused(recipe: Path, change: str, told: str):
    code, output, message = invoke("recipe", "check", recipe, "--set", change)

    assert (code, output) == (1, "")
    assert message.startswith("error: --set")
    assert told in message


def test_a_run_refuses_a_bad_recipe_and_missing_data_before_it_makes_a_folder(recipe: Path, tmp_path: Path):
    for changes, told in (
        (["pruning.sparsity=1.5"], "sparsity"),
        (["evaluation.data=not/here"], "evaluation.data not/here does not exist"),
        (["synthesis.method=images", "synthesis.data=not/here"], "synthesis.data not/here does not exist"),
    ):
        settings = [part for change in changes for part in ("--set", change)]
        code, _, message = invoke("run", recipe, "--runs", tmp_path / "runs", *settings)

        assert code == 1
        assert told in message
        assert "Traceback" not in message
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_not_a_runs_is_left_alone(recipe: Path, tmp_path: Path):
    (tmp_path / "model").mkdir()

    code, _, message = invoke("run", recipe, "--output", tmp_path)

    assert code == 1
    assert "not a run's folder" in message


def test_a_recipe_that_is_not_there_is_an_error_with_a_remedy(tmp_path: Path):
    code, _, message = invoke("run", tmp_path / "none.yaml")

    assert code == 1
    assert "there is no recipe" in message
    assert "  now: " in message


def test_models_show_tells_size_sparsity_layers_and_origin(tmp_path: Path, tiny_teacher: Teacher):
    teacher = artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    student = prune(tiny_teacher, GlobalMagnitudeSection(sparsity=0.5), seed=0)
    inputs = artifacts.records({"teacher": tmp_path / "teacher"})
    made = {"computed_on": "NVIDIA L4", "resumed": ["c" * 64]}
    digest = artifacts.save_student(student, tmp_path / "model", inputs=inputs, **made)

    code, output, _ = invoke("models", "show", tmp_path / "model")

    parameters = sum(parameter.numel() for parameter in tiny_teacher.network.parameters())
    assert code == 0
    assert f"parameters  {parameters:,}\n" in output
    assert "sparsity    50.0 %" in output
    assert "computed on NVIDIA L4\n" in output
    assert f"went on from a checkpoint of its own run, {'c' * 64}\n" in output
    assert digest in output
    assert teacher in output
    rows = [line.split() for line in output.splitlines() if ".weight " in line]
    kept = {row[0]: int(row[2].replace(",", "")) for row in rows}
    assert kept == {name: int(mask.sum()) for name, mask in student.mask.keep.items()}
    assert "whole " not in output


def test_models_show_names_the_layers_that_stay_whole(tmp_path: Path, tiny_teacher: Teacher):
    student = prune(tiny_teacher, SemiStructuredSection(), seed=0)  # its first convolution has 3 input channels
    artifacts.save_student(student, tmp_path / "model")

    _, output, _ = invoke("models", "show", tmp_path / "model")

    assert "whole       conv1.weight, 216 weights, not counted above\n" in output


def test_models_show_refuses_a_model_that_was_changed(tmp_path: Path, tiny_teacher: Teacher):
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    weights = tmp_path / "teacher" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")

    code, output, message = invoke("models", "show", tmp_path / "teacher")

    assert (code, output) == (1, "")
    assert "sha256" in message


def test_models_show_refuses_what_is_no_model(tmp_path: Path, tiny_teacher: Teacher):
    from resprout.statistics import extract

    artifacts.save_statistics(extract(tiny_teacher), tmp_path / "statistics")

    code, _, message = invoke("models", "show", tmp_path / "statistics")

    assert code == 1
    assert "statistics" in message


def test_models_list_names_the_example():
    assert "cifar_resnet20" in invoke("models", "architectures")[1].split()


def test_compile_refuses_changes_to_no_recipe(tmp_path: Path):
    exit_code, _, errors = invoke("compile", "--set", "recovery.epochs=1", "-o", tmp_path / "pipeline.yaml")
    assert exit_code == 2
    assert "none is given" in errors
    assert not (tmp_path / "pipeline.yaml").exists()


def inputs_of(path: Path) -> dict[str, Any]:
    """Which pipeline it is, and what each input is unless a run says otherwise."""
    spec = next(yaml.safe_load_all(path.read_text()))
    given = spec["root"]["inputDefinitions"]["parameters"]
    kind = spec["root"]["dag"]["tasks"]["plan"]["inputs"]["parameters"]["kind"]["runtimeValue"]["constant"]
    return {"pipeline": kind, **{name: it.get("defaultValue") for name, it in given.items()}}


def test_compile_writes_the_recipe_as_a_form_that_is_filled_in(recipe: Path, tmp_path: Path):
    changes = ("--set", "pruning.sparsity=0.9", "--set", "seed=3", "--set", "placement.gpus=2")
    exit_code, output, errors = invoke("compile", recipe, *changes, "-o", tmp_path / "mine-on-kfp.yaml")

    assert exit_code == 0, errors
    assert output == f"wrote {tmp_path / 'mine-on-kfp.yaml'}\n"
    assert inputs_of(tmp_path / "mine-on-kfp.yaml") == {
        "pipeline": "compress",
        "teacher": "nowhere",
        "test_set": "",
        "sparsity": "0.9",
        "publish_to": "",
        "seed": 3,
        "recipe": {"name": "mine"},
        "placement": {"gpus": 2},
    }


@pytest.mark.parametrize(
    ("words", "pipeline"),
    [
        ((), "compress"),
        (("--pipeline", "scan"), "scan"),
        (("--set", "synthesis.method=images", "--set", "synthesis.data=s3://b/train"), "compress-images"),
    ],
)
def test_compile_takes_the_pipeline_that_fits_or_the_one_that_is_named(
    recipe: Path, tmp_path: Path, words: tuple[str, ...], pipeline: str
):
    assert invoke("compile", recipe, *words, "-o", tmp_path / "pipeline.yaml")[0] == 0
    inputs = inputs_of(tmp_path / "pipeline.yaml")
    assert inputs["pipeline"] == pipeline
    assert inputs.get("images") == ("s3://b/train" if pipeline == "compress-images" else None)


@pytest.mark.parametrize("pipeline", ["compress", "compress-images", "scan"])
def test_compile_writes_each_pipeline_without_a_recipe_too(tmp_path: Path, pipeline: str):
    assert invoke("compile", "--pipeline", pipeline, "-o", tmp_path / "pipeline.yaml")[0] == 0
    assert (tmp_path / "pipeline.yaml").read_bytes() == (ROOT / "pipeline" / f"{pipeline}.yaml").read_bytes()


def test_compile_refuses_a_pipeline_that_cannot_do_what_the_recipe_says(recipe: Path, tmp_path: Path):
    refused = invoke("compile", recipe, "--pipeline", "compress-images", "-o", tmp_path / "pipeline.yaml")

    assert refused[0] == 1
    assert "synthesis.method: is deep_inversion" in refused[2]
    assert not list(tmp_path.glob("pipeline*"))
