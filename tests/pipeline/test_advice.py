"""What a recipe is told that could do better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.advice import advice
from pipeline.cli import app
from resprout import recipe as recipe_module
from resprout.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
PAPERS = {"paper", "with-data"}
"""What these do is said elsewhere."""


def recipe_with(**sections: Any) -> Recipe:
    recipe: Recipe = recipe_module.validate(Recipe, {"teacher": {"source": "any"}, **sections}, "recipe")
    return recipe


def test_one_shot_that_leaves_few_weights_is_told_of_rounds():
    (line,) = advice(recipe_with(pruning={"sparsity": 0.9}))
    assert "where 90 % of the weights go" in line
    assert line.endswith("time: --set pruning.rounds=3")


def test_the_smallest_weights_are_told_of_those_that_others_make_up_for():
    (line,) = advice(recipe_with(pruning={"method": "global_magnitude", "sparsity": 0.9}))
    assert line.endswith("time: --set pruning.method=optimal_brain --set pruning.rounds=3")


def test_a_criterion_that_was_chosen_is_left_alone():
    (line,) = advice(recipe_with(pruning={"method": "fisher", "sparsity": 0.95}))
    assert line.endswith("time: --set pruning.rounds=3")


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"pruning": {"sparsity": "auto"}},
        {"pruning": {"sparsity": 0.9, "rounds": 2}},
        {"pruning": {"sparsity": 0.9}, "recovery": {"method": "reconstruction"}},
        {"pruning": {"method": "structured", "macs_ratio": 0.1}},
    ],
)
def test_others_are_told_nothing(sections: dict[str, Any]):
    assert advice(recipe_with(**sections)) == []


def test_what_is_told_is_a_recipe_that_is_told_no_more():
    (line,) = advice(recipe_with(pruning={"method": "global_magnitude", "sparsity": 0.9}))
    told = dict(pair.removeprefix("pruning.").split("=") for pair in line.split("--set ")[1:])
    told = {name: value.strip() for name, value in told.items()}
    assert advice(recipe_with(pruning={"sparsity": 0.9, "method": told["method"], "rounds": int(told["rounds"])})) == []


def test_recipes_that_come_along_for_use_follow_it():
    shipped = [recipe_module.load(path) for path in RECIPES.glob("*.yaml") if path.stem not in PAPERS]
    assert [recipe.name for recipe in shipped if advice(recipe)] == []


def test_checking_a_recipe_says_so_too():
    result = CliRunner().invoke(app, ["recipe", "check", str(RECIPES / "demo.yaml"), "--set", "pruning.sparsity=0.9"])
    assert result.exit_code == 0
    assert result.output.splitlines()[1].startswith("note: where 90 %")
