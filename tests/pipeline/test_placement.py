"""Where the compiled pipeline puts its stages: GPUs, nodes, secrets, images. A lint, which any placement must pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components._image import CPU_IMAGE, GPU_IMAGE
from pipeline import command, placement, recipes
from resprout import recipe as recipe_module
from resprout.errors import RecipeError
from resprout.recipe import PlacementSection, Recipe
from tests.pipeline.compiled import Stage, by_component, read

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "pipeline" / "compress.yaml"
DOCS = ROOT / "docs" / "gpu-nodes.md"
SLICES = (
    "placement.gpu_type=nvidia.com/mig-1g.10gb",
    "placement.gpu_memory_gib=8",
    "placement.evaluate_on_gpu=true",
    "placement.retries=4",
    "placement.timeout_seconds=7200",
    "placement.shared_memory=1Gi",
    "placement.image_pull_secrets=[registry]",
    "placement.num_shards=4",
)


def compiled(path: Path, *changes: str) -> Path:
    recipe = recipes.override(recipe_module.load(ROOT / "recipes" / "demo.yaml"), changes)
    command.compile_to(path, recipe)
    return path


def defaults(path: Path) -> dict[str, Any]:
    parameters = next(yaml.safe_load_all(path.read_text()))["root"]["inputDefinitions"]["parameters"]
    return {name: parameter.get("defaultValue") for name, parameter in parameters.items()}


@pytest.fixture(scope="module", params=[None, (), SLICES], ids=["committed", "a recipe", "MIG slices"])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param is None:
        return COMMITTED
    return compiled(tmp_path_factory.mktemp("compiled") / "pipeline.yaml", *request.param)


@pytest.fixture(scope="module")
def stages(pipeline: Path) -> list[Stage]:
    return read(pipeline)  # follows every reference to where it leads


def on_gpu(stage: Stage) -> bool:
    return "accelerator" in stage.container.get("resources", {})


def test_gpus_go_to_the_stages_that_compute_and_always_with_a_type(pipeline: Path, stages: list[Stage]):
    wanted = {"synthesize", "prune-on-dreams", "scan-sensitivity", "recover"} | (
        {"evaluate"} if len(defaults(pipeline)["gpu_affinity"]) else set()
    )

    assert {stage.component for stage in stages if on_gpu(stage)} == wanted
    for stage in stages:
        if on_gpu(stage):
            asked = {name: stage.placement[name] for name in ("type", "count", "memory", "image")}
            assert asked == {
                "type": "gpu_type",
                "count": "gpu_count",
                "memory": "gpu_stage_memory",
                "image": "gpu_image",
            }
    assert defaults(pipeline)["gpu_type"].startswith("nvidia.com/")
    assert defaults(pipeline)["gpu_count"] == "1"


def test_gpu_stages_can_be_placed_anew_by_whoever_submits(stages: list[Stage]):
    for stage in filter(on_gpu, stages):
        assert stage.placement["/nodeSelector/nodeSelectorJson"] == "gpu_node_selector"
        assert stage.placement["/tolerations/0/tolerationJson"] == "gpu_tolerations"
        assert stage.placement["/nodeAffinity/0/nodeAffinityJson"] == "gpu_affinity"


def test_gpu_stages_come_back_after_they_were_taken_off_their_node(pipeline: Path, stages: list[Stage]):
    sliced = bool(defaults(pipeline)["gpu_affinity"])
    for stage in filter(on_gpu, stages):
        retry = stage.task["retryPolicy"]
        assert retry["maxRetryCount"] == (4 if sliced else 2)
        assert (retry["backoffDuration"], retry["backoffFactor"], retry["backoffMaxDuration"]) == ("30s", 2.0, "600s")
        assert stage.kubernetes["activeDeadlineSeconds"] == ("7200" if sliced else "86400")
        (memory,) = stage.kubernetes["emptyDirMounts"]
        assert (memory["mountPath"], memory["medium"]) == ("/dev/shm", "Memory")
        assert memory["sizeLimit"] == ("1Gi" if sliced else "2Gi")


def test_other_stages_ask_for_no_gpu_and_stay_off_the_nodes_that_have_them(stages: list[Stage]):
    others = [stage for stage in stages if not on_gpu(stage)]
    assert others
    for stage in others:
        assert stage.placement["image"] == "cpu_image"
        (term,) = stage.kubernetes["nodeAffinity"]
        assert term["matchExpressions"] == [{"key": "nvidia.com/gpu.present", "operator": "DoesNotExist"}]
        assert "weight" not in term, "required, not preferred"
        assert not {"tolerations", "nodeSelector"} & set(stage.kubernetes)


def test_every_stage_asks_for_memory_and_cores(stages: list[Stage]):
    for stage in stages:
        resources = stage.container["resources"]
        assert resources["resourceCpuRequest"]
        assert resources["resourceMemoryLimit"]


def test_storage_credentials_reach_only_the_stages_that_move_bytes_in_and_out(stages: list[Stage]):
    def secrets(stage: Stage) -> set[str]:
        return {source for path, source in stage.placement.items() if path.startswith("/secretAs")}

    given = by_component(stages, secrets)
    moving = {"fetch-teacher", "fetch-test-set", "collect-images", "publish"}
    assert {name for name, found in given.items() if found == {"storage_secret"}} == moving
    # these keep checkpoints, with a secret of their own that need reach nothing else
    keeping = {"synthesize", "prune-on-dreams", "recover"}
    assert {name for name, found in given.items() if found == {"checkpoint_secret"}} == keeping
    assert sum(map(bool, given.values())) == len(moving | keeping)
    assert not any(stage.kubernetes.get("secretAsEnv") for stage in stages)


def test_no_stage_runs_as_root(stages: list[Stage]):
    for stage in stages:
        assert stage.kubernetes["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": "65532",
            "runAsGroup": "65532",
        }


def test_pods_can_be_told_apart_by_their_stage(stages: list[Stage]):
    for stage in stages:
        assert stage.kubernetes["podMetadata"]["labels"] == {
            "app.kubernetes.io/part-of": "resprout",
            "app.kubernetes.io/component": stage.component,
        }


def test_images_are_ours_and_never_move(pipeline: Path):
    assert defaults(pipeline)["cpu_image"] == CPU_IMAGE
    assert defaults(pipeline)["gpu_image"] == GPU_IMAGE
    for image in (CPU_IMAGE, GPU_IMAGE):
        assert PlacementSection(cpu_image=image).cpu_image == image


@pytest.mark.parametrize("image", ["resprout/cpu", "resprout/cpu:latest", "registry:5000/resprout/cpu"])
def test_an_image_that_may_be_another_tomorrow_is_refused(image: str):
    with pytest.raises(RecipeError, match=r"placement\.cpu_image: .*must end in a digest"):
        recipe_module.validate(Recipe, {"teacher": {"source": "x"}, "placement": {"cpu_image": image}}, "recipe")


def test_a_digest_and_a_registry_of_ones_own_are_fine():
    digest = f"registry.example.org:5000/team/cpu@sha256:{64 * '0'}"
    assert PlacementSection(cpu_image=digest).cpu_image == digest


def test_enough_gpu_memory_is_asked_for_by_label():
    affinity = placement.gpu_affinity(PlacementSection(gpu_memory_gib=40))
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["40959"]}]
    assert placement.gpu_affinity(PlacementSection()) == {}


def test_without_a_gpu_nothing_of_one_is_asked_for():
    given = placement.parameters(PlacementSection(gpus=0, gpu_memory_gib=40))
    assert given["gpu_count"] == "0"
    assert given["gpu_tolerations"] == []
    assert given["gpu_affinity"] == {}


def test_compiling_gives_the_same_bytes_in_every_process(tmp_path: Path):
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "compile", "recipes/demo.yaml", "-o", str(tmp_path / name)],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
    assert len({(tmp_path / name).read_bytes() for name in ("a.yaml", "b.yaml", "c.yaml")}) == 1
