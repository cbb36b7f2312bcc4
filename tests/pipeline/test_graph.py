"""The graph as it is compiled and as recipes fill it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import command, recipes, runners
from pipeline.containers import KEEPS_CHECKPOINTS
from resprout import recipe as recipe_module
from resprout.errors import RecipeError
from resprout.recipe import Recipe
from resprout.sources.hubs import torchvision_weights
from tests.pipeline.compiled import Stage, by_component, read

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "pipeline" / "compress.yaml"


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    return next(yaml.safe_load_all(COMMITTED.read_text()))


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return read(COMMITTED)


def test_the_committed_yaml_is_what_the_code_compiles_to(tmp_path: Path):
    command.compile_to(tmp_path / "first.yaml")
    command.compile_to(tmp_path / "second.yaml")

    compiled = (tmp_path / "first.yaml").read_bytes()
    assert compiled == (tmp_path / "second.yaml").read_bytes()
    assert compiled == COMMITTED.read_bytes(), "run: resprout compile -o pipeline/compress.yaml"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.yaml", "second.yaml"]


def test_a_recipe_becomes_the_defaults_of_the_compiled_pipeline(tmp_path: Path):
    recipe = recipe_module.load(ROOT / "recipes" / "extreme.yaml")
    command.compile_to(tmp_path / "extreme.yaml", recipe)
    compiled = next(yaml.safe_load_all((tmp_path / "extreme.yaml").read_text()))
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    assert recipe_module.section("pruning", parameters["pruning"]["defaultValue"]) == recipe.pruning
    assert recipe_module.section("recovery", parameters["recovery"]["defaultValue"]) == recipe.recovery
    assert parameters["teacher"]["defaultValue"]["source"] == "examples/resnet20-cifar10/teacher"
    assert all("defaultValue" in parameter or parameter.get("isOptional") for parameter in parameters.values())


def test_a_run_can_be_started_in_the_ui_with_nothing_filled_in(spec: dict[str, Any]):
    given = spec["root"]["inputDefinitions"]["parameters"]
    assert all("defaultValue" in parameter for parameter in given.values())
    defaults = {name: given[name]["defaultValue"] for name in given}
    stages = set(recipe_module.SECTIONS) - {"placement"}
    sections = {name: recipe_module.section(name, defaults[name]) for name in stages}
    assert Recipe(name="resnet18", **sections) == command.UNCHANGED
    assert torchvision_weights(sections["teacher"].source).url.startswith("https://")


@pytest.mark.parametrize("name", sorted(set(recipe_module.SECTIONS) - {"teacher", "placement"}))
def test_a_section_that_is_emptied_in_the_ui_is_the_default_one(name: str):
    assert recipe_module.section(name, {}) == getattr(command.UNCHANGED, name)


def test_everything_that_the_ui_shows_says_what_it_is(spec: dict[str, Any]):
    for name, component in spec["components"].items():
        if "executorLabel" not in component:
            continue
        inputs = component.get("inputDefinitions", {})
        for key, definition in {**inputs.get("parameters", {}), **inputs.get("artifacts", {})}.items():
            assert definition.get("description"), (name, key)
    for name, given in spec["root"]["inputDefinitions"]["parameters"].items():
        assert given["description"], name
        assert "\n" not in given["description"], f"{name}: one line, or the YAML is hard to read"


def test_nothing_is_installed_when_a_stage_starts(spec: dict[str, Any]):
    containers = [executor["container"] for executor in spec["deploymentSpec"]["executors"].values()]

    assert not any("pip install" in part for container in containers for part in container["command"])


def test_each_stage_that_computes_receives_its_own_section_and_no_other(stages: list[Stage]):
    received = by_component(stages, lambda stage: set(stage.parameters.values()) & set(recipe_module.SECTIONS))
    assert received == {
        "fetch-teacher": {"teacher"},
        "extract-statistics": set(),
        "prune": {"pruning"},
        "prune-on-dreams": {"pruning", "recovery"},  # in rounds it recovers in between
        "plan-shards": set(recipe_module.SECTIONS) - {"placement"},  # it holds them against each other
        "synthesize": {"synthesis"},
        "collect-images": {"synthesis"},
        "merge-dreams": set(),
        "scan-sensitivity": set(),
        "recover": {"recovery"},
        "fetch-test-set": {"evaluation"},
        "evaluate": {"evaluation"},
        "gate": {"gate"},
        "publish": {"publishing"},
    }


def test_the_labelled_test_set_goes_to_evaluation_and_nowhere_else(stages: list[Stage]):
    receivers = {stage.component for stage in stages if "fetch-test-set.test_set" in stage.artifacts.values()}
    assert receivers == {"evaluate"}


def test_a_test_set_that_does_not_fit_is_refused_before_a_gpu_is_asked_for(stages: list[Stage]):
    planning = next(stage for stage in stages if stage.component == "plan-shards")
    assert "fetch-test-set" in planning.task["dependentTasks"]


def test_inputs_that_make_no_sense_are_refused_before_a_gpu_is_asked_for(spec: dict[str, Any], stages: list[Stage]):
    looped = [
        task["parameterIterator"]["items"]["inputParameter"]
        for component in spec["components"].values()
        for task in component.get("dag", {"tasks": {}})["tasks"].values()
        if "parameterIterator" in task
    ]
    assert looped == ["pipelinechannel--plan-shards-Output"] * 2
    branches = spec["root"]["dag"]["tasks"]["condition-branches-1"]
    assert "plan-shards" in branches["dependentTasks"], "whether real images or dreams are made"
    recovering = next(stage for stage in stages if stage.component == "recover")
    assert recovering.artifacts["dreams"].startswith("condition-branches-1."), "in which the loops are"


def test_of_real_images_and_dreams_one_is_made(spec: dict[str, Any]):
    branches = spec["components"]["comp-condition-branches-1"]["dag"]["tasks"].values()
    made = {
        next(name for name in spec["components"][task["componentRef"]["name"]]["dag"]["tasks"]): task["triggerPolicy"]
        for task in branches
    }
    assert set(made) == {"collect", "for-loop-4", "for-loop-6"}
    wanted = "inputs.parameter_values['pipelinechannel--collected'] == true"
    assert made.pop("collect")["condition"] == wanted
    assert all(policy["condition"].startswith(f"!({wanted}) && ") for policy in made.values())


def test_nothing_is_published_that_has_not_passed_the_gate():
    spec = next(yaml.safe_load_all(COMMITTED.read_text()))
    (published,) = [
        name for name in spec["root"]["dag"]["tasks"] if name.startswith("condition") and _publishes(spec, name)
    ]
    assert "gate" in spec["root"]["dag"]["tasks"][published]["dependentTasks"]


def _publishes(spec: dict[str, Any], task: str) -> bool:
    component = spec["components"][spec["root"]["dag"]["tasks"][task]["componentRef"]["name"]]
    return any(name.startswith("publish") for name in component["dag"]["tasks"])


def test_dreams_that_no_student_guides_do_not_depend_on_pruning(stages: list[Stage]):
    inputs = [set(stage.artifacts.values()) for stage in stages if stage.component == "synthesize"]

    blind, aware = sorted(inputs, key=len)
    assert blind == {"fetch-teacher.teacher", "extract-statistics.statistics"}
    assert aware == {*blind, "prune.student"}
    draft = next(stage for stage in stages if stage.component == "prune")
    assert set(draft.artifacts.values()) == {"fetch-teacher.teacher"}
    parameters = {name for stage in stages if stage.component == "synthesize" for name in stage.parameters.values()}
    assert not parameters & {"pruning", "recovery", "evaluation", "student_aware"}


def test_stages_that_keep_checkpoints_may_write_them_from_a_container_too(stages: list[Stage]):
    keeping = {stage.component for stage in stages if "checkpoints" in stage.parameters.values()}
    assert keeping == {name.replace("_", "-") for name in KEEPS_CHECKPOINTS}


def test_a_reference_that_leads_nowhere_is_noticed(tmp_path: Path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(COMMITTED.read_text().replace("componentInputParameter: gpu_count", "componentInputParameter: x"))

    with pytest.raises(KeyError, match="x"):
        read(broken)


@pytest.mark.parametrize("path", recipes.shipped(), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_says_what_it_gives(path: Path):
    loaded = recipe_module.load(path)

    assert loaded.name == path.stem
    assert len(recipes.headline(path)) > 20
    assert path.read_text().startswith("# ")


def test_the_shipped_recipes_are_these():
    assert [path.stem for path in recipes.shipped()] == [
        "demo",
        "extreme",
        "no-data",
        "paper",
        "structured",
        "training-free",
        "with-data",
    ]


@pytest.mark.parametrize("path", recipes.shipped(), ids=lambda path: path.stem)
def test_what_the_pipeline_is_given_is_the_recipe(path: Path):
    loaded = recipe_module.load(path)

    arguments = runners.arguments(loaded)

    stages = set(recipe_module.SECTIONS) - {"placement"}
    sections = {name: recipe_module.section(name, arguments[name]) for name in stages}
    assert all(sections[name] == getattr(loaded, name) for name in sections)
    assert arguments["seed"] == loaded.seed
    assert arguments["collected"] == (loaded.synthesis.method == "images")
    assert arguments["student_aware"] is False
    assert arguments["pruned_on_dreams"] == loaded.pruning.needs_dreams
    assert arguments["scanned"] == loaded.evaluation.scan_layers


def test_a_student_weight_switches_the_student_on():
    fields = {
        "teacher": {"source": "t"},
        "synthesis": {"method": "deep_inversion", "student_weight": 0.5},
        "pruning": {"method": "lamp"},
    }

    assert runners.arguments(recipe_module.validate(Recipe, fields, "test"))["student_aware"] is True


def test_real_images_switch_their_collection_on():
    fields = {"teacher": {"source": "t"}, "synthesis": {"method": "images", "data": "s3://bucket/train"}}

    arguments = runners.arguments(recipe_module.validate(Recipe, fields, "test"))

    assert arguments["collected"] is True
    assert recipe_module.section("synthesis", arguments["synthesis"]) == recipe_module.ImagesSection(
        data="s3://bucket/train"
    )


def test_rounds_switch_pruning_on_dreams_on():
    fields = {"teacher": {"source": "t"}, "pruning": {"sparsity": 0.9, "rounds": 3}}

    assert runners.arguments(recipe_module.validate(Recipe, fields, "test"))["pruned_on_dreams"] is True


def test_dreams_and_pruning_that_wait_for_each_other_are_refused():
    fields = {"teacher": {"source": "t"}, "synthesis": {"student_weight": 1.0}, "pruning": {"method": "taylor"}}

    with pytest.raises(RecipeError, match="taylor looks at dreams"):
        recipe_module.validate(Recipe, fields, "test")
    fields["pruning"] = {"method": "lamp", "rounds": 2}  # these are shown a student that was pruned at once
    assert recipe_module.validate(Recipe, fields, "test").pruning.needs_dreams


def test_the_folder_is_the_recipes_own():
    fields: dict[str, Any] = {"teacher": {"source": "t"}, "name": "mine"}
    one = recipe_module.validate(Recipe, fields, "test")
    default = recipe_module.DistillationSection().epochs
    same = recipe_module.validate(Recipe, {**fields, "recovery": {"method": "distillation", "epochs": default}}, "test")
    other = recipe_module.validate(Recipe, {**fields, "seed": 1}, "test")

    folder = runners.folder_for(one, Path("runs")).path
    assert folder.parent == Path("runs")
    assert folder.name.startswith("mine-")
    assert runners.folder_for(same, Path("runs")).path == folder  # saying a default changes nothing
    assert runners.folder_for(other, Path("runs")).path != folder
