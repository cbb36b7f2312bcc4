"""What of a recipe's placement makes another pipeline version, and what is only a parameter of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import command
from resprout.recipe import PlacementSection, Recipe
from resprout.recipe.form import to_inputs
from resprout.recipe.placement import AT_SUBMIT

OTHER: dict[str, Any] = {
    "num_shards": 4,
    "gpu_type": "nvidia.com/mig-1g.10gb",
    "gpus": 0,
    "gpu_memory_gib": 40,
    "gpu_node_selector": {"zone": "a"},
    "gpu_tolerations": (),
    "gpu_stage_memory": "32Gi",
    "gpu_stage_cpus": "8",
    "shared_memory": "4Gi",
    "cpu_stage_memory": "8Gi",
    "cpu_stage_cpus": "2",
    "use_gpu_nodes": True,
    "evaluate_on_gpu": True,
    "queue": "team-vision",
    "retries": 5,
    "retry_pause_seconds": 10,
    "timeout_seconds": 3600,
    "checkpoints": "s3://checkpoints/a",
    "cpu_image": "registry.example.org/cpu:1",
    "gpu_image": "registry.example.org/cuda:1",
    "storage_secret": "mine",
    "publishing_secret": "mine",
    "checkpoint_secret": "mine",
    "image_pull_secrets": ("registry",),
}


def compiled(section: PlacementSection, folder: Path) -> bytes:
    command.compile_placed(folder / "pipeline.yaml", section, "compress")
    return (folder / "pipeline.yaml").read_bytes()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(PlacementSection(), tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("field", list(PlacementSection.model_fields))
def test_a_field_is_a_parameter_or_is_compiled_in_never_both_and_never_neither(
    field: str, usual: bytes, tmp_path: Path
) -> None:
    section = PlacementSection(**{field: OTHER[field]})
    recipe = Recipe(teacher={"source": "torchvision://resnet18"}, placement=section)
    same = recipe.model_copy(update={"placement": PlacementSection()})

    is_parameter = to_inputs(recipe, "compress") != to_inputs(same, "compress")
    is_compiled_in = compiled(section, tmp_path) != usual

    assert is_parameter != is_compiled_in
    assert is_parameter == (field in AT_SUBMIT)
