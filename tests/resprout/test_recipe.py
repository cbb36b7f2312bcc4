"""Recipes: strict about names and ranges, forgiving about how KFP spells numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from resprout import recipe
from resprout.errors import RecipeError


def load(folder: Path, text: str) -> recipe.Recipe:
    path = folder / "Mine.yaml"
    path.write_text(text)
    return recipe.load(path)


def test_a_recipe_is_called_as_its_file_and_defaults_are_filled_in(tmp_path: Path):
    loaded = load(tmp_path, "teacher: {source: here}")

    assert loaded.name == "mine"
    assert loaded.pruning == recipe.OptimalBrainSection()


def test_a_section_that_names_no_method_gets_the_usual_one(tmp_path: Path):
    loaded = load(tmp_path, "teacher: {source: x}\npruning: {sparsity: 0.9}\nrecovery: {epochs: 5}")

    assert loaded.pruning == recipe.OptimalBrainSection(sparsity=0.9)
    assert loaded.recovery == recipe.DistillationSection(epochs=5)
    assert recipe.section("synthesis", {"iterations": 7.0}) == recipe.DeepInversionSection(iterations=7)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("teacher: {source: x}\nrecover: {}", "recover: no such field; did you mean recovery?"),
        ("teacher: {source: x, sauce: y}", "teacher.sauce: no such field; did you mean source?"),
        ("teacher: {source: x, input: {shapes: [3, 8, 8]}}", "did you mean shape?"),
        ("teacher: {source: x}\nrecovery: {method: distillation, temprature: 3}", "did you mean temperature?"),
        ("teacher: {source: x}\nrecovery: {method: distillation, learning_rate: -0.002}", "got -0.002"),
        ("teacher: {source: x}\npruning: {method: teacher_guided, alpha: 2}", "Mine.yaml, pruning.alpha: input"),
        ("teacher: {source: x}\nrecovery: {method: reconstruction, ridge: 0}", "Mine.yaml, recovery.ridge: input"),
        ("teacher: {source: x}\nrecovery: {method: reconstruction, epochs: 3}", "belongs to method: distillation"),
        ("teacher: {source: x}\nsynthesis: {method: paper, jitter: 3}", "jitter: belongs to method: deep_inversion"),
        ("teacher: {source: x}\npruning: {method: synflow, alpha: 1}", "alpha: belongs to method: teacher_guided"),
        ("teacher: {source: x}\nsparsity: 0.5", "sparsity: no such field; is pruning.sparsity meant?"),
        ("teacher: {source: x}\npruning: {epochs: 5}", "pruning.epochs: no such field; is recovery.epochs meant?"),
        ("teacher: {source: x}\npruning: {method: lanp}", "pruning.method: there is no lanp; did you mean lamp?"),
        ("teacher: {source: x}\nname: My run", "got 'My run'; my-run would do"),
        ("teacher: {source: }", "teacher.source: is empty, where text belongs"),
        ("teacher: {source: x, class_names: [null, yes]}", "put null or ~ in quotes"),
        ("teacher: {source: x}\nsynthesis: {num_images: 1}", "synthesis.num_images: input should be greater"),
        ("teacher: {source: x}\nsynthesis: {method: paper, num_images: 1}", "synthesis.num_images: input should be"),
        ("teacher: {source: x}\nsynthesis: {method: images, data: y, num_images: 1}", "num_images: input should be"),
        ("teacher: {source: x}\npruning: {method: teacher_guided, alpha: 1}", "pruning.alpha: 1 asks the teacher"),
        (
            "teacher: {source: x}\npruning: {rounds: 2, round_epochs: 3}\nrecovery: {method: reconstruction}",
            "round_epochs: is 3, and recovery.method is reconstruction",
        ),
        ("teacher: {}", "teacher.source: is required"),
        ("seed: 1", "teacher: is required"),
        ("[1, 2]", "not a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(tmp_path: Path, text: str, told: str):
    with pytest.raises(RecipeError) as refused:
        load(tmp_path, text)

    assert told in str(refused.value)
    assert "Mine.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("shape: [32, 32, 3]", "that is height, width, channels"),
        ("shape: [28, 28, 1], mean: [0.5], std: [0.5]", "now: shape: [1, 28, 28]"),
        ("shape: [32, 32]", "shape: is [32, 32], not channels, height, width"),
        ("shape: [1, 3, 32, 32]", "not channels, height, width"),
        ("shape: 3x32x32", "shape: is 3x32x32, not channels, height, width"),
        ("shape: [3, 0, 32]", "three sizes, each at least 1"),
        ("shape: [1, 28, 28]", "3 means and 3 standard deviations for 1 channels"),
        (
            "shape: [3, 8, 8], mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]",
            "now: divide by 255: mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]",
        ),
        ("shape: [3, 8, 8], mean: [103.94, 116.78, 123.68], std: [1, 1, 1]", "std: [0.00392, 0.00392, 0.00392]"),
        ("shape: [3, 8, 8], mean: [0, 0, 0], std: [255, 255, 255]", "divide by 255"),
        ("shape: [3, 8, 8], mean: [-1, -1, -1], std: [0.5, 0.5, 0.5]", "no pixel is below 0"),
        ("shape: [3, 8, 8], std: [0, 0.2, 0.2]", "divided by std"),
        ("shape: [3, 8, 8], mean: [0, 0, 0], std: [0.0009, 0.0009, 0.0009]", "divided by 255 twice"),
        ("shape: [3, 8, 8], mean: [.nan, 0, 0]", "give numbers"),
        ("shape: [3, 8, 8], mean: 0.5", "now: for three channels mean: [0.5, 0.5, 0.5]"),
    ],
)
def test_an_input_that_cannot_be_meant_is_refused_with_what_probably_was(tmp_path: Path, section: str, told: str):
    with pytest.raises(RecipeError) as refused:
        load(tmp_path, f"teacher: {{source: x, input: {{{section}}}}}")

    assert told in str(refused.value)
    assert refused.value.what.startswith("recipe Mine.yaml, teacher.input")


@pytest.mark.parametrize(
    "section",
    [
        "shape: [3, 8, 8], mean: [0, 0, 0], std: [1, 1, 1]",
        "shape: [3, 8, 8], mean: [0, 0, 0], std: [0.00392, 0.00392, 0.00392]",
        "shape: [3, 8, 8], mean: [0.408, 0.459, 0.485], std: [0.00392, 0.00392, 0.00392]",
        "shape: [1, 28, 28], mean: [0.1307], std: [0.3081]",
        f"shape: [13, 64, 4], mean: {[0.5] * 13}, std: {[0.5] * 13}",
    ],
)
def test_an_unusual_input_is_taken_as_it_is_stated(tmp_path: Path, section: str):
    loaded = load(tmp_path, f"teacher: {{source: x, input: {{{section}}}}}")
    assert loaded.teacher.input == recipe.InputSection(**yaml.safe_load(f"{{{section}}}"))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("[dog, cat, dog]", "'dog' is there twice, as 0 and 2"),
        ("['caf\u00e9', 'cafe\u0301']", "is there twice"),
        ("[cat, '']", "name 1 is empty"),
        ("[cat, null]", "put null or ~ in quotes"),
        ("[cat, ~]", "put null or ~ in quotes"),
    ],
)
def test_class_names_that_tell_no_classes_apart_are_refused(tmp_path: Path, names: str, told: str):
    with pytest.raises(RecipeError) as refused:
        load(tmp_path, f"teacher: {{source: x, class_names: {names}}}")
    assert told in str(refused.value)


def test_class_names_that_came_as_truth_values_are_to_be_quoted():
    with pytest.raises(RecipeError, match="got False; put it in quotes"):
        recipe.section("teacher", {"source": "x", "class_names": [False, True]})


def test_a_gate_on_a_latency_that_is_not_measured_is_refused_before_anything_runs(tmp_path: Path):
    limit = "teacher: {source: x}\ngate: {max_latency_ratio: 1.1}"
    with pytest.raises(RecipeError) as refused:
        load(tmp_path, limit)

    assert str(refused.value).splitlines() == [
        "recipe Mine.yaml, gate.max_latency_ratio: needs evaluation.measure_latency, which is off",
        "  why: a latency that is not measured cannot be judged, and the run would fail at its end",
        "  now: set evaluation.measure_latency: true, or leave the limit out",
    ]
    loaded = load(tmp_path, f"{limit}\nevaluation: {{measure_latency: true}}")
    assert loaded.gate.max_latency_ratio == 1.1


def test_all_problems_come_at_once(tmp_path: Path):
    with pytest.raises(RecipeError) as refused:
        load(tmp_path, "teacher: {source: x}\nseed: -1\npruning: {method: random, sparsity: 2}")

    assert len(refused.value.what.splitlines()) == 2


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my recipe.yaml", "my-recipe"),
        ("demo (copy).yaml", "demo-copy"),
        ("prüfung.yaml", "prufung"),
        ("_test.yaml", "test"),
        ("Größe [2].yaml", "grosse-2"),
        ("v1.2_final.yaml", "v1.2_final"),
        ("配方.yaml", "unnamed"),
        (f"{90 * 'n'}.yaml", 63 * "n"),
    ],
)
def test_any_file_name_makes_a_run_s_name(tmp_path: Path, file: str, name: str):
    (tmp_path / file).write_text("teacher: {source: x}")

    assert recipe.load(tmp_path / file).name == name


def test_a_recipe_that_is_not_there_is_refused_with_a_remedy(tmp_path: Path):
    with pytest.raises(RecipeError, match="resprout recipe list"):
        recipe.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", list(recipe.SECTIONS))
def test_a_section_survives_numbers_that_came_back_as_floats(name: str):
    made = recipe.Recipe(teacher=recipe.TeacherSection(source="x", arguments={"width": 8, "depths": [1, 2]}))
    section = getattr(made, name)

    received = recipe.section(name, floats(section.model_dump(mode="json", exclude_none=True)))

    assert received == section
    if name == "teacher":
        assert [type(value) for value in (received.arguments["width"], *received.arguments["depths"])] == [int] * 3


def floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: floats(part) for name, part in value.items()}
    if isinstance(value, list):
        return [floats(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def test_a_name_or_a_version_may_look_like_a_number(tmp_path: Path):
    file = tmp_path / "numbers.yaml"
    text = "teacher: {source: s3://a/b, class_names: [no, 010, 2026-11-28]}\nname: 0042\n"
    file.write_text(text + "publishing: {name: 7, version: 0.10}\nplacement: {gpu_stage_cpus: 8}\n")

    read = recipe.load(file)

    assert read.teacher.class_names == ("no", "010", "2026-11-28")
    assert (read.name, read.publishing.name, read.publishing.version) == ("0042", "7", "0.10")
    assert read.placement.gpu_stage_cpus == "8"


def test_in_a_run_s_inputs_a_whole_number_is_a_version_and_a_fraction_is_ambiguous():
    assert recipe.section("publishing", {"version": 123.0}).version == "123"
    with pytest.raises(RecipeError, match=r"version: .* got 0\.1; put it in quotes"):
        recipe.section("publishing", {"version": 0.10})


def test_text_where_a_number_belongs_is_refused_still():
    with pytest.raises(RecipeError, match=r"epochs: input should be a valid integer"):
        recipe.section("recovery", {"method": "distillation", "epochs": "many"})
