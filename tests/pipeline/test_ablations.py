"""The ablations that come along: each changes of the baseline what its name says, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import recipes
from resprout import recipe as recipe_module

ROOT = Path(__file__).parents[2]
VARIED = {
    "synthesis.coarsest": 1,
    "recovery.temperature": 16,
    "recovery.zoom": 1.3,
    "recovery.rotation": 10,
    "recovery.cutmix": 0.5,
}
CHANGES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "bn-frozen": {"recovery.keep_batchnorm_frozen": True},
    **{f"dreams-{count}": {"synthesis.num_images": count} for count in (512, 2048, 4096)},
    **{f"iterations-{count}": {"synthesis.iterations": count} for count in (25, 100, 200)},
    "sanity-50": {"pruning.sparsity": 0.5},
    "features-0": {"recovery.feature_weight": 0},
    "mixup-0": {"recovery.mixup": 0},
    "lamp": {"pruning.method": "lamp"},
    "rounds-3": {"pruning.rounds": 3},
    **{f"temperature-{value}": {"recovery.temperature": value} for value in (1, 2, 8, 16)},
    "epochs-160": {"recovery.epochs": 160},
    "zoom-1.3": {"recovery.zoom": 1.3},
    "rotation-10": {"recovery.rotation": 10},
    "cutmix-0.5": {"recovery.cutmix": 0.5},
    "coarsest-1": {"synthesis.coarsest": 1},
    "together": VARIED,
}


def fields(path: Path) -> dict[str, Any]:
    """Every field of a recipe but its name: `section.field` -> value."""
    dumped = recipe_module.load(path).model_dump(exclude={"name"})
    return {
        f"{section}.{name}": value
        for section, values in dumped.items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


def test_the_ablations_that_come_along_are_these():
    assert [path.stem for path in recipes.ablations()] == sorted(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_an_ablation_changes_one_thing_and_asks_one_question(name: str):
    path = ROOT / "recipes" / "ablations" / f"{name}.yaml"
    baseline, changed = fields(path.with_stem("baseline")), fields(path)

    assert {field: value for field, value in changed.items() if baseline[field] != value} == CHANGES[name]
    text = path.read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert len(comments) == 1
    assert len(text.splitlines()) <= 22
    assert len(recipes.headline(path)) > 20
    assert (ROOT / recipe_module.load(path).teacher.source).is_dir()


def test_the_baseline_is_the_default_with_its_start_settled_plain_dreams_and_plain_views():
    baseline = recipe_module.load(ROOT / "recipes" / "ablations" / "baseline.yaml")
    default = recipe_module.validate(recipe_module.Recipe, {"teacher": {"source": "any"}}, "default")

    assert baseline.synthesis == default.synthesis.model_copy(update={"coarsest": 4})
    plain = {"zoom": 1.0, "rotation": 0.0, "cutmix": 0.0}
    settled = {"start": "repaired", "temperature": 4.0, **plain}
    assert baseline.recovery == default.recovery.model_copy(update=settled)
