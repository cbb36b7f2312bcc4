"""A recipe as the inputs of a run: what a person fills in, and what comes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resprout import recipe as recipe_module
from resprout.errors import RecipeError
from resprout.recipe import PlacementSection, Recipe
from resprout.recipe.form import FIELDS, KINDS, fitting, from_inputs, kind_of, to_inputs
from resprout.recipe.placement import AT_SUBMIT

RECIPES = Path(__file__).parents[2] / "recipes"
EMPTY: dict[str, Any] = {
    "teacher": "torchvision://resnet18",
    "images": "",
    "test_set": "",
    "sparsity": "0.75",
    "publish_to": "",
    "seed": 0,
    "recipe": {},
    "placement": {},
}


def recipe_of(fields: Mapping[str, Any]) -> Recipe:
    made: Recipe = recipe_module.validate(Recipe, fields, "test")
    return made


def as_handed_on(value: Any) -> Any:
    """What KFP makes of an input: a number inside a dictionary is a float."""
    if isinstance(value, dict):
        return {name: as_handed_on(part) for name, part in value.items()}
    if isinstance(value, list):
        return [as_handed_on(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def through_kfp(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: as_handed_on(value) if isinstance(value, dict) else value for name, value in inputs.items()}


def without_what_is_compiled_in(recipe: Recipe) -> Recipe:
    said = recipe.placement.model_dump(include=set(AT_SUBMIT))
    return recipe.model_copy(update={"placement": PlacementSection(**said)})


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_comes_along_is_the_same_after_the_form(path: Path):
    recipe = recipe_module.load(path)
    kind = kind_of(recipe)
    inputs = to_inputs(recipe, kind)

    assert set(inputs) == {*KINDS[kind], "seed", "recipe", "placement"}
    assert from_inputs(kind, through_kfp(inputs)) == without_what_is_compiled_in(recipe)


def test_what_is_left_at_its_default_is_in_no_input():
    recipe = recipe_of({"name": "resnet18", "teacher": {"source": "torchvision://resnet18"}})
    assert to_inputs(recipe, "compress") == {name: value for name, value in EMPTY.items() if name != "images"}


WORDS = st.text("abcdefgh0123456789", min_size=1, max_size=8)
ADDRESSES = st.builds("s3://{}/{}".format, WORDS, WORDS)
SHARES = st.floats(0.01, 0.99)
TEACHERS = st.fixed_dictionaries(
    {"source": st.one_of(ADDRESSES, WORDS, st.builds("hf://{}/{}@{}".format, WORDS, WORDS, WORDS))},
    optional={
        "num_classes": st.integers(2, 2000),
        "class_names": st.lists(WORDS, min_size=1, max_size=3, unique=True),
        # a free-form argument that is a whole number comes back as an int
        "arguments": st.dictionaries(WORDS, st.one_of(WORDS, st.integers(0, 9), SHARES, st.booleans()), max_size=3),
    },
)
DREAMS = st.fixed_dictionaries(
    {"num_images": st.integers(1024, 9000)},
    optional={"group_size": st.integers(2, 99), "learning_rate": SHARES, "pyramid": st.booleans()},
)
PRUNING = st.one_of(
    st.fixed_dictionaries(
        {"sparsity": st.one_of(SHARES, st.just("auto"))},
        optional={
            "method": st.sampled_from(["optimal_brain", "global_magnitude", "lamp", "fisher", "random"]),
            "exclude": st.lists(WORDS, max_size=2),
        },
    ),
    st.fixed_dictionaries({"method": st.just("structured"), "macs_ratio": SHARES}),
    st.just({"method": "semi_structured"}),
)
RECOVERY = st.one_of(
    st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 99), "flip": st.booleans(), "mixup": SHARES}),
    st.sampled_from([{"method": "paper"}, {"method": "reconstruction", "ridge": 0.5}]),
)
OTHERS = {
    "name": WORDS,
    "seed": st.integers(0, 2**31 - 1),
    "teacher": TEACHERS,
    "pruning": PRUNING,
    "recovery": RECOVERY,
    "gate": st.fixed_dictionaries({}, optional={"min_sparsity": SHARES, "max_size_mib": st.integers(1, 99)}),
    "evaluation": st.fixed_dictionaries({}, optional={"data": ADDRESSES, "max_images": st.integers(1, 99)}),
    "publishing": st.fixed_dictionaries({}, optional={"to": ADDRESSES, "version": WORDS}),
    "placement": st.fixed_dictionaries(
        {},
        optional={
            "num_shards": st.integers(1, 8),
            "gpus": st.integers(0, 16),
            "gpu_memory_gib": st.integers(1, 99),
            "gpu_tolerations": st.just([]),
            "gpu_node_selector": st.dictionaries(WORDS, WORDS, max_size=2),
            "checkpoints": ADDRESSES,
        },
    ),
}


@given(st.fixed_dictionaries({**OTHERS, "synthesis": st.one_of(DREAMS, st.just({"method": "paper"}))}))
def test_any_recipe_is_the_same_after_the_form(fields: dict[str, Any]):
    recipe = recipe_of(fields)
    assert from_inputs("compress", through_kfp(to_inputs(recipe, "compress"))) == recipe


@given(st.fixed_dictionaries({**OTHERS, "num_images": st.integers(2, 9000)}))
def test_so_is_one_with_images_of_its_own(fields: dict[str, Any]):
    synthesis = {"method": "images", "data": "s3://images/of/my/own", "num_images": fields.pop("num_images")}
    recipe = recipe_of({**fields, "synthesis": synthesis})
    assert kind_of(recipe) == "compress-images"
    assert from_inputs("compress-images", through_kfp(to_inputs(recipe, "compress-images"))) == recipe


@given(st.fixed_dictionaries({**OTHERS, "synthesis": DREAMS}))
def test_a_scan_is_told_of_its_own_stages_alone(fields: dict[str, Any]):
    recipe = recipe_of(fields)
    read = {name: getattr(recipe, name) for name in ("name", "seed", "teacher", "synthesis", "placement")}
    assert fitting(recipe, "scan") == recipe_of(
        {
            **{name: getattr(part, "model_dump", lambda part=part: part)() for name, part in read.items()},
            "pruning": {"exclude": recipe.pruning.exclude},
        }
    )
    assert fitting(fitting(recipe, "scan"), "scan") == fitting(recipe, "scan")


@pytest.mark.parametrize(
    ("typed", "sparsity"), [("0.9", 0.9), (" 0.9", 0.9), (".5", 0.5), ("1e-3", 0.001), ("auto", "auto"), ("", 0.75)]
)
def test_a_sparsity_is_text_and_is_understood(typed: str, sparsity: float | str):
    assert from_inputs("compress", {**EMPTY, "sparsity": typed}).pruning.sparsity == sparsity  # type: ignore[union-attr]


@pytest.mark.parametrize("typed", ["abc", "90%", "0,9", "1", "1.5", "75", "-0.5", "0.5.1", "nan", "AUTO"])
def test_a_sparsity_that_is_none_is_refused(typed: str):
    with pytest.raises(
        RecipeError, match=rf"^the run's inputs, pruning\.sparsity: input should .*'{re.escape(typed)}'"
    ):
        from_inputs("compress", {**EMPTY, "sparsity": typed})


def test_a_sparsity_where_the_method_has_none_is_refused_with_the_remedy():
    structured = {"pruning": {"method": "structured", "macs_ratio": 0.5}}
    with pytest.raises(RecipeError, match=r"sparsity: is 0\.75, and pruning\.method structured has none") as refused:
        from_inputs("compress", {**EMPTY, "recipe": structured})
    assert refused.value.now == "leave sparsity empty"
    assert from_inputs("compress", {**EMPTY, "recipe": structured, "sparsity": ""}).pruning.method == "structured"


@pytest.mark.parametrize("name", ["seed", "placement"])
def test_what_has_an_input_of_its_own_is_refused_in_the_json(name: str):
    with pytest.raises(RecipeError, match=f"recipe: holds {name}"):
        from_inputs("compress", {**EMPTY, "recipe": {name: EMPTY[name]}})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FIELDS)
def test_no_field_is_said_twice(kind: str, name: str):
    section, field = FIELDS[name]
    with pytest.raises(RecipeError, match=rf"recipe: holds {section}\.{field}") as refused:
        from_inputs(kind, {**EMPTY, "recipe": {section: {field: EMPTY[name]}}})
    remedy = f"leave it out of recipe, and set {name}" if name in KINDS[kind] else "leave it out of recipe"
    assert refused.value.now == remedy


@pytest.mark.parametrize("field", sorted(PlacementSection.model_fields))
def test_a_placement_says_what_may_be_said_for_each_run_and_no_more(field: str):
    value = PlacementSection().model_dump(mode="json")[field]
    placed = {**EMPTY, "placement": {field: value}}
    if field in AT_SUBMIT:
        assert from_inputs("compress", placed).placement == PlacementSection()
        return
    with pytest.raises(RecipeError, match=f"placement: holds {field}") as refused:
        from_inputs("compress", placed)
    assert f"--set placement.{field}=" in refused.value.now


@pytest.mark.parametrize(
    ("kind", "synthesis"),
    [
        ("compress", {"method": "images"}),
        ("scan", {"method": "images"}),
        ("compress-images", {"method": "deep_inversion"}),
        ("compress-images", {"method": "paper"}),
    ],
)
def test_a_pipeline_takes_dreams_or_images_and_says_which(kind: str, synthesis: dict[str, str]):
    said = rf"synthesis\.method: is {synthesis['method']}"
    with pytest.raises(RecipeError, match=said) as refused:
        from_inputs(kind, {**EMPTY, "images": "s3://b/train", "recipe": {"synthesis": synthesis}})
    assert f"the pipeline {kind} takes" in refused.value.why

    data = {"data": "s3://b/train"} if synthesis["method"] == "images" else {}
    recipe = recipe_of({"teacher": {"source": "t"}, "synthesis": {**synthesis, **data}})
    with pytest.raises(RecipeError, match=said):
        to_inputs(recipe, kind)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"recipe": {"recovery": 3}}, "recovery: "),
        ({"recipe": {"teacher": 3}}, "teacher: "),
        ({"recipe": {"synthesis": "paper"}}, "synthesis: "),
        ({"recipe": {"nonsense": {}}}, "nonsense: no such field"),
        ({"placement": {"num_shard": 2}}, "placement.num_shard: no such field; did you mean num_shards?"),
        ({"seed": 1.5}, "seed: "),
        ({"teacher": ""}, "teacher.source: is required"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["compress", "scan"])
def test_what_is_wrong_is_named(kind: str, inputs: dict[str, Any], said: str):
    with pytest.raises(RecipeError, match=re.escape(f"the run's inputs, {said}")):
        from_inputs(kind, {**EMPTY, **inputs})


def test_a_field_of_another_method_is_told_whose_it_is():
    with pytest.raises(RecipeError) as refused:
        from_inputs("compress", {**EMPTY, "sparsity": "", "recipe": {"pruning": {"method": "structured", "rounds": 2}}})
    assert "pruning.rounds: belongs to method: global_magnitude or layer_magnitude or" in refused.value.what


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("torchvision://resnet18?weights=IMAGENET1K_V1", "resnet18"),
        ("timm://resnet10t.c3_in1k", "resnet10t.c3_in1k"),
        ("hf://owner/My-Net@main", "my-net"),
        ("s3://bucket/models/Teacher 2.pt", "teacher-2"),
        ("s3://bucket/folder/", "folder"),
        ("https://user:secret@host/net.safetensors?signature=secret", "net"),
        ("s3://bucket/ü.pth", "u"),
        ("s3://bucket/教師.pth", "unnamed"),
        (f"s3://bucket/{99 * 'n'}", 63 * "n"),
    ],
)
def test_a_run_without_a_name_is_called_as_its_teachers_source_ends(source: str, name: str):
    recipe = from_inputs("compress", {**EMPTY, "teacher": source})
    assert recipe.name == name
    assert "name" not in to_inputs(recipe, "compress")["recipe"]
    assert from_inputs("compress", {**EMPTY, "teacher": source, "recipe": {"name": "mine"}}).name == "mine"


def test_a_recipe_called_by_no_name_keeps_it():
    recipe = recipe_of({"teacher": {"source": "torchvision://resnet18"}})
    assert from_inputs("compress", to_inputs(recipe, "compress")) == recipe


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"teacher": {"source": "s3://b/t", "class_names": ["a", "{{$.inputs.parameters['seed']}}"]}}, "class_names.1"),
        ({"teacher": {"source": "s3://b/{{workflow.name}}"}}, "teacher.source"),
        ({"teacher": {"source": "s3://b/t", "arguments": {"{{x}}": 1}}}, "teacher.arguments.{{x}}"),
    ],
)
def test_what_a_cluster_would_fill_in_is_refused(sections: dict[str, Any], field: str):
    with pytest.raises(RecipeError, match=re.escape(field)) as refused:
        fitting(recipe_of({"name": "x", **sections}), "compress")
    assert "in the place of {{…}}" in refused.value.why
