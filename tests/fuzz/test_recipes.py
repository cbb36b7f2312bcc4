from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from pipeline import recipes
from pipeline.run_folder import folder_for
from resprout import recipe
from resprout.errors import ResproutError
from resprout.recipe.form import fitting, from_inputs, kind_of
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import changed, changed_json, damaged

SHIPPED = [path.read_bytes() for path in (*recipes.shipped(), *recipes.ablations())]
FIELDS = {
    "teacher": {
        "source": "https://host/net.pt",
        "architecture": "timm:resnet10t",
        "arguments": {"stem_width": 8, "layers": [1, 1], "act_layer": "relu"},
        "class_names": ["cat", "dog"],
        "input": {"shape": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        "sha256": "0" * 64,
    },
    "synthesis": {"method": "deep_inversion", "num_images": 64, "learning_rate": 0.1},
    "pruning": {"method": "lamp", "sparsity": 0.5, "exclude": ["fc"]},
    "recovery": {"method": "distillation", "epochs": 3},
    "evaluation": {"data": "s3://bucket/set", "max_images": 8},
    "publishing": {"to": "s3://bucket/models", "name": "net", "version": "0.10"},
    "placement": {"gpu_node_selector": {"a": "b"}, "gpu_tolerations": [{"key": "a"}], "num_shards": 2},
}
INPUTS = {
    "teacher": "s3://bucket/net.pt",
    "test_set": "",
    "sparsity": "0.75",
    "publish_to": "",
    "seed": 0,
    "recipe": {name: FIELDS[name] for name in ("synthesis", "recovery")},
    "placement": {"gpus": 1},
}
# what YAML has beside JSON
ALIASES = b"teacher: &a {source: x, arguments: &b {c: [1, 2]}}\nsynthesis: {<<: *b, num_images: 8}\nevaluation: *a\n"


def test_any_file_is_a_recipe_or_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        use(recipe.load(path))

    fuzz(st.sampled_from([*SHIPPED, ALIASES]).flatmap(damaged) | changed_json(FIELDS), read)


def test_any_inputs_of_a_form_are_a_recipe_or_refused(fuzz: Fuzz) -> None:
    def read(inputs: Any) -> None:
        if isinstance(inputs, dict) and inputs.keys() >= INPUTS.keys():
            texts = {name: str(inputs[name]) for name in ("teacher", "test_set", "sparsity", "publish_to")}
            parts = {name: inputs[name] for name in ("recipe", "placement") if isinstance(inputs[name], dict)}
            use(from_inputs("compress", {**INPUTS, **inputs, **texts, "recipe": {}, "placement": {}, **parts}))

    fuzz(changed(INPUTS), read)


def test_any_change_on_the_command_line_is_made_or_refused(fuzz: Fuzz) -> None:
    base = recipe.validate(recipe.Recipe, FIELDS, "base")
    changes = st.sampled_from([b"teacher.arguments.a=[1, {b: c}]", b"pruning.sparsity=0.9", b"a.b.c=*x"])
    fuzz(
        changes.flatmap(damaged).map(lambda change: change.decode(errors="replace")),
        lambda change: use(recipes.override(base, [change])),
    )


def use(read: recipe.Recipe) -> None:
    """What is done with a recipe: it is shown, named after, written, and made a run's inputs."""
    recipes.as_yaml(read).encode()
    folder_for(read, Path("runs")).path.name.encode()
    json.dumps(yaml.safe_load(recipes.as_yaml(read)))
    try:
        fitting(read, kind_of(read))
    except ResproutError:
        return
