"""The graphs as they are compiled."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import components
from pipeline import command, recipes
from pipeline.containers import KEEPS_CHECKPOINTS
from pipeline.run_folder import folder_for
from resprout import recipe as recipe_module
from resprout.recipe import PlacementSection, Recipe
from resprout.recipe.form import KINDS, from_inputs
from resprout.sources.hubs import torchvision_weights
from tests.components.stages import GIVEN
from tests.pipeline.compiled import Stage, by_component, pods, read

ROOT = Path(__file__).parents[2]
EVERYTHING = {
    "gpus": 4,
    "queue": "team-vision",
    "evaluate_on_gpu": True,
    "use_gpu_nodes": True,
    "image_pull_secrets": ("registry",),
}
# what one shard may cost: KFP loses sight of a run whose state outgrows 1 MiB, and every pod is ten seconds
MOST_PODS = 28


def committed(kind: str) -> Path:
    return ROOT / "pipeline" / f"{kind}.yaml"


@pytest.fixture(scope="module", params=[(kind, every) for kind in KINDS for every in (False, True)], ids=str)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, every = request.param
    if not every:
        return committed(kind)
    path = tmp_path_factory.mktemp("compiled") / f"{kind}.yaml"
    command.compile_placed(path, PlacementSection(**EVERYTHING), kind)
    return path


@pytest.fixture(scope="module")
def spec(compiled: Path) -> dict[str, Any]:
    return next(yaml.safe_load_all(compiled.read_text()))


@pytest.fixture(scope="module")
def stages(compiled: Path) -> list[Stage]:
    return read(compiled)  # follows every reference to where it leads


@pytest.fixture(scope="module")
def compress() -> list[Stage]:
    return read(committed("compress"))


def dags(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec["root"]["dag"]
    yield from (component["dag"] for component in spec["components"].values() if "dag" in component)


def defaults(kind: str) -> dict[str, Any]:
    inputs = next(yaml.safe_load_all(committed(kind).read_text()))["root"]["inputDefinitions"]["parameters"]
    return {name: given["defaultValue"] for name, given in inputs.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_yaml_is_what_the_code_compiles_to(kind: str, tmp_path: Path):
    for name in ("first.yaml", "second.yaml"):
        command.compile_placed(tmp_path / name, PlacementSection(), kind)

    found = (tmp_path / "first.yaml").read_bytes()
    assert found == (tmp_path / "second.yaml").read_bytes()
    assert found == committed(kind).read_bytes(), "run: make format"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.yaml", "second.yaml"]


def test_there_is_one_way_through(spec: dict[str, Any]):
    """KFP never closes a branch whose tasks came from its cache: whoever asks for its outcome fails."""
    for dag in dags(spec):
        for task in dag["tasks"].values():
            assert not task.get("triggerPolicy", {}).get("condition"), "a condition"
        for output in dag.get("outputs", {}).get("artifacts", {}).values():
            assert len(output["artifactSelectors"]) == 1, "a OneOf"
    loops = [name for name, task in spec["root"]["dag"]["tasks"].items() if "parameterIterator" in task]
    nested = [task for task in spec["root"]["dag"]["tasks"].values() if "dag" in component_of(spec, task)]
    assert len(nested) == len(loops), "a pipeline in a pipeline"
    taken = {
        (source["taskOutputArtifact"]["producerTask"], task["taskInfo"]["name"])
        for task in spec["root"]["dag"]["tasks"].values()
        for source in task.get("inputs", {}).get("artifacts", {}).values()
        if source["taskOutputArtifact"]["producerTask"] in loops
    }
    assert taken == {(loop, "merge-dreams") for loop in loops}


def component_of(spec: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["components"][task["componentRef"]["name"]]
    return found


def test_a_run_with_one_shard_has_few_pods(spec: dict[str, Any]):
    assert pods(spec, shards=1) <= MOST_PODS


def test_pods_are_counted_as_a_real_cluster_had_them():
    spec = next(yaml.safe_load_all(committed("compress").read_text()))
    assert (pods(spec, shards=1), pods(spec, shards=2)) == (25, 28)


def test_the_boxes_of_the_graph_have_the_stages_names(spec: dict[str, Any], stages: list[Stage]):
    shown = {task["taskInfo"]["name"] for dag in dags(spec) for task in dag["tasks"].values()}
    looped = {"dreams"} if any(stage.component == "synthesize" for stage in stages) else set()
    assert shown == {stage.component for stage in stages} | looped


def test_no_source_and_no_description_travels_in_a_nodes_state(spec: dict[str, Any]):
    for executor in spec["deploymentSpec"]["executors"].values():
        container = executor["container"]
        assert container["command"] == ["python3", "-m", "kfp.dsl.executor_main"]
        assert container["args"][:3] == ["--executor_input", "{{$}}", "--function_to_execute"]
        assert len(container["args"]) == 4
    assert "description" not in yaml.safe_dump(spec["components"])


def test_the_images_hold_every_component():
    listed = configparser.ConfigParser()
    folder = Path(components.__file__).parent
    listed.read(folder / "kfp_config.ini")

    found = {path.stem: path.name for path in folder.glob("[a-z]*.py")}
    assert dict(listed["Components"]) == found
    assert all(f"\ndef {name}(" in (folder / file).read_text() for name, file in found.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_has_few_fields_and_each_says_what_it_is(kind: str):
    inputs = next(yaml.safe_load_all(committed(kind).read_text()))["root"]["inputDefinitions"]["parameters"]
    assert len(inputs) <= 8
    assert set(inputs) == {*KINDS[kind], "seed", "recipe", "placement"}
    assert all(given["description"] and "\n" not in given["description"] for given in inputs.values())
    assert (defaults(kind)["recipe"], defaults(kind)["placement"]) == ({}, {})


def test_a_run_can_be_started_in_the_ui_with_nothing_filled_in():
    recipe = from_inputs("compress", defaults("compress"))
    assert recipe == command.UNCHANGED
    assert torchvision_weights(recipe.teacher.source).url.startswith("https://")
    assert from_inputs("scan", defaults("scan")).teacher == recipe.teacher


def test_a_recipe_becomes_the_defaults_of_the_compiled_pipeline(tmp_path: Path):
    recipe = recipe_module.load(ROOT / "recipes" / "extreme.yaml")
    command.compile_to(tmp_path / "extreme.yaml", recipe, "compress")
    inputs = next(yaml.safe_load_all((tmp_path / "extreme.yaml").read_text()))["root"]["inputDefinitions"]["parameters"]
    assert from_inputs("compress", {name: given["defaultValue"] for name, given in inputs.items()}) == recipe


def test_each_stage_receives_its_own_section_and_no_other(compress: list[Stage]):
    sections = {f"plan.{name}" for name in recipe_module.SECTIONS}
    pruning = next(stage for stage in compress if stage.component == "prune")
    assert pruning.parameters["recovery"] == "plan.between_rounds"  # empty where it would only spoil the cache
    received = by_component(compress, lambda stage: set(stage.parameters.values()) & {*sections, "recipe"})
    assert received == {
        "plan": {"recipe"},
        "fetch-teacher": {"plan.teacher"},
        "fetch-test-set": {"plan.evaluation"},
        "extract-statistics": set(),
        "synthesize": {"plan.synthesis"},
        "merge-dreams": set(),
        "prune": {"plan.pruning"},
        "recover": {"plan.recovery"},
        "evaluate": {"plan.evaluation"},
        "gate": {"plan.gate"},
        "publish": {"plan.publishing"},
    }


def test_what_is_decided_anew_each_time_is_never_taken_from_the_cache(stages: list[Stage]):
    uncached = {stage.component for stage in stages if not stage.task["cachingOptions"].get("enableCache")}
    assert uncached == {"plan", "gate", "publish"} & {stage.component for stage in stages}


def test_every_pipeline_finds_what_another_left_in_the_cache():
    named = {next(yaml.safe_load_all(committed(kind).read_text()))["pipelineInfo"]["name"] for kind in KINDS}
    assert named == {"resprout"}, "KFP keeps the cache of each name apart"


def test_what_is_fetched_is_cached_by_its_bytes(stages: list[Stage]):
    fetching = {stage.component: stage.parameters for stage in stages if "identity" in stage.parameters}
    assert fetching
    for name, parameters in fetching.items():
        assert re.fullmatch(r"plan\.(teacher|test_set|images)_identity", parameters["identity"]), name
    assert set(fetching) == {stage.component for stage in stages} & {
        "fetch-teacher",
        "fetch-test-set",
        "collect-images",
    }


def test_the_labelled_test_set_goes_to_evaluation_and_nowhere_else(stages: list[Stage]):
    receivers = {stage.component for stage in stages if "fetch-test-set.test_set" in stage.artifacts.values()}
    assert receivers <= {"evaluate"}
    told = {stage.component for stage in stages if "fetch-test-set.digests" in stage.parameters.values()}
    assert told == receivers, "the others' places in the cache would depend on it"
    assert bool(receivers) == any(stage.component == "fetch-test-set" for stage in stages)


def test_each_stage_is_told_the_digest_of_each_artifact_that_it_reads(stages: list[Stage]):
    """Each hands on those that it was told and its own: what it reads was made on the way that they came."""
    told = {
        stage.component: {source(value) for name, value in stage.parameters.items() if name.endswith("digests")}
        for stage in stages
    }

    def on_the_way(component: str) -> set[str]:
        return told[component].union(*map(on_the_way, told[component]))

    for stage in stages:
        assert {source(value) for value in stage.artifacts.values()} <= on_the_way(stage.component), stage.component
        assert set(stage.artifacts) == set(GIVEN.get(stage.component, ())), (
            "tests/components/test_digests.py tries each"
        )


def source(output: str) -> str:
    task = output.partition(".")[0]
    return "synthesize" if task.startswith("for-loop") else task


def test_nothing_is_published_that_has_not_passed_the_gate(compress: list[Stage]):
    publishing = next(stage for stage in compress if stage.component == "publish")
    assert "gate" in publishing.task["dependentTasks"]


@pytest.mark.parametrize(("kind", "first"), [("compress", "for-loop-1"), ("compress-images", "collect-images")])
def test_a_test_set_that_does_not_fit_is_refused_before_a_gpu_is_asked_for(kind: str, first: str):
    tasks = next(yaml.safe_load_all(committed(kind).read_text()))["root"]["dag"]["tasks"]
    assert "fetch-test-set" in tasks[first]["dependentTasks"]


def test_no_dream_depends_on_pruning(compress: list[Stage]):
    (synthesizing,) = (stage for stage in compress if stage.component == "synthesize")
    assert set(synthesizing.artifacts.values()) == {"fetch-teacher.teacher", "extract-statistics.statistics"}
    assert not set(synthesizing.parameters.values()) & {"plan.pruning", "plan.recovery", "plan.evaluation"}


def test_stages_that_keep_checkpoints_may_write_them_from_a_container_too(compress: list[Stage]):
    keeping = {stage.component for stage in compress if "plan.checkpoints" in stage.parameters.values()}
    assert keeping == {name.replace("_", "-") for name in KEEPS_CHECKPOINTS}


def test_a_reference_that_leads_nowhere_is_noticed(tmp_path: Path):
    broken = tmp_path / "broken.yaml"
    text = committed("compress").read_text()
    broken.write_text(text.replace("componentInputParameter: seed", "componentInputParameter: x"))

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


def test_the_folder_is_the_recipes_own():
    fields: dict[str, Any] = {"teacher": {"source": "t"}, "name": "mine"}
    one = recipe_module.validate(Recipe, fields, "test")
    default = recipe_module.DistillationSection().epochs
    same = recipe_module.validate(Recipe, {**fields, "recovery": {"method": "distillation", "epochs": default}}, "test")
    other = recipe_module.validate(Recipe, {**fields, "seed": 1}, "test")

    folder = folder_for(one, Path("runs")).path
    assert folder.parent == Path("runs")
    assert folder.name.startswith("mine-")
    assert folder_for(same, Path("runs")).path == folder  # saying a default changes nothing
    assert folder_for(other, Path("runs")).path != folder
