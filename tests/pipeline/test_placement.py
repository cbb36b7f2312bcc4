"""Where the compiled pipeline puts its stages: GPUs, nodes, secrets, images. A lint, which any placement must pass."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components._asked import affinity, asked
from components._image import CPU_IMAGE, GPU_IMAGE
from components.plan import Plan
from pipeline import command
from pipeline.placement import (
    PUBLISHING_FOLDER,
    SECRETS_FOLDER,
    SIGNING_FOLDER,
    SIGNING_SECRET,
    SMALL,
    compiled_in,
    gpu_stages,
    images,
)
from resprout import recipe as recipe_module
from resprout.errors import RecipeError
from resprout.recipe import PlacementSection, Recipe
from resprout.recipe.form import KINDS
from resprout.recipe.placement import AT_SUBMIT
from tests.pipeline.compiled import Stage, by_component, read

ROOT = Path(__file__).parents[2]
DIGEST = 64 * "0"
OTHERWISE = {
    "evaluate_on_gpu": True,
    "retries": 4,
    "retry_pause_seconds": 10,
    "timeout_seconds": 7200,
    "shared_memory": "1Gi",
    "image_pull_secrets": ("registry",),
    "cpu_stage_memory": "6Gi",
    "cpu_stage_cpus": "2",
    "use_gpu_nodes": True,
    "gpu_tolerations": ({"key": "nvidia.com/gpu", "operator": "Exists", "tolerationSeconds": 60},),
    "queue": "team-vision",
    "storage_secret": "my-storage",
    "publishing_secret": "my-publishing",
    "checkpoint_secret": "my-checkpoints",
    "cpu_image": f"registry.example.org:5000/team/cpu@sha256:{DIGEST}",
    "gpu_image": f"registry.example.org:5000/team/cuda@sha256:{DIGEST}",
}


@dataclass(frozen=True)
class Compiled:
    """A pipeline, and the placement that it was compiled for."""

    section: PlacementSection
    stages: list[Stage]

    def with_gpu(self) -> list[Stage]:
        return [stage for stage in self.stages if "accelerator" in stage.container["resources"]]

    def without(self) -> list[Stage]:
        return [stage for stage in self.stages if "accelerator" not in stage.container["resources"]]


@pytest.fixture(
    scope="module", params=[(kind, name) for kind in KINDS for name in ("committed", "otherwise")], ids="-".join
)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    kind, name = request.param
    if name == "committed":
        return Compiled(PlacementSection(), read(ROOT / "pipeline" / f"{kind}.yaml"))
    path, section = tmp_path_factory.mktemp("compiled") / "pipeline.yaml", PlacementSection(**OTHERWISE)
    command.compile_placed(path, section, kind)
    return Compiled(section, read(path))


def test_gpus_go_to_the_stages_that_compute_and_always_with_a_type(compiled: Compiled):
    wanted = {name.replace("_", "-") for name in gpu_stages(compiled.section)}

    assert {it.component for it in compiled.with_gpu()} == wanted & {it.component for it in compiled.stages}
    for stage in compiled.with_gpu():
        count = "plan.synthesis_gpus" if stage.component == "synthesize" else "plan.gpus"
        assert {name: stage.placement[name] for name in ("type", "count", "memory", "cpus")} == {
            "type": "plan.gpu_type",
            "count": count,
            "memory": "plan.gpu_stage_memory",
            "cpus": "plan.gpu_stage_cpus",
        }
        assert stage.parameters["gpus"] == count, "it looks for as many as it asked for"


def test_a_stage_that_asks_for_no_gpu_expects_none(compiled: Compiled):
    expecting = {
        stage.component: stage.parameters["gpus"] for stage in compiled.without() if "gpus" in stage.parameters
    }
    assert expecting in ({}, {"evaluate": json.dumps({"constant": "0"})})


def test_gpu_stages_can_be_placed_anew_by_whoever_submits(compiled: Compiled):
    for stage in compiled.with_gpu():
        assert stage.placement["/tolerations/0/tolerationJson"] == "plan.gpu_tolerations"
        assert stage.placement["/nodeAffinity/0/nodeAffinityJson"] == "plan.gpu_affinity"
        assert "nodeSelector" not in stage.kubernetes, "labels are part of the affinity"


def test_what_places_gpu_stages_is_what_plan_says():
    said = asked(PlacementSection())
    assert set(said) <= set(Plan._fields)
    assert (said["gpus"], said["synthesis_gpus"], said["gpu_type"]) == ("1", "1", "nvidia.com/gpu")


def test_every_stage_comes_back_after_it_was_taken_off_its_node_and_none_runs_for_ever(compiled: Compiled):
    section = compiled.section
    for stage in compiled.stages:
        retry, pause = stage.task["retryPolicy"], section.retry_pause_seconds
        assert retry["maxRetryCount"] == section.retries
        assert (retry["backoffDuration"], retry["backoffFactor"]) == (f"{pause}s", 2.0)
        # from the first try's start: a stage that died in its last minute is tried again too
        assert int(retry["backoffMaxDuration"].rstrip("s")) > section.retries * section.timeout_seconds
        assert stage.kubernetes["activeDeadlineSeconds"] == str(section.timeout_seconds)


def test_gpu_stages_have_shared_memory(compiled: Compiled):
    section = compiled.section
    for stage in compiled.with_gpu():
        (memory,) = stage.kubernetes["emptyDirMounts"]
        assert (memory["mountPath"], memory["medium"]) == ("/dev/shm", "Memory")
        assert memory["sizeLimit"] == section.shared_memory


def test_other_stages_avoid_nodes_with_gpus_or_prefer_them_and_are_never_bound(compiled: Compiled):
    others, section = compiled.without(), compiled.section
    assert others
    for stage in others:
        (term,) = stage.kubernetes["nodeAffinity"]
        operator = "Exists" if section.use_gpu_nodes else "DoesNotExist"
        assert term["matchExpressions"] == [{"key": "nvidia.com/gpu.present", "operator": operator}]
        assert term["weight"] == 100, "preferred, not required"
        tolerated = [{"key": "nvidia.com/gpu", "operator": "Exists", "tolerationSeconds": "60"}]
        assert stage.kubernetes.get("tolerations", []) == (tolerated if section.use_gpu_nodes else [])


def test_every_stage_asks_for_memory_and_cores(compiled: Compiled):
    for stage in compiled.without():
        resources = stage.container["resources"]
        usual = (compiled.section.cpu_stage_cpus, compiled.section.cpu_stage_memory)
        asking = (resources["resourceCpuRequest"], resources["resourceMemoryLimit"])
        assert asking == SMALL.get(stage.component, usual), stage.component


def test_storage_credentials_reach_only_the_stages_that_move_bytes_in_and_out(compiled: Compiled):
    def secrets(stage: Stage) -> set[str]:
        mounted = {it["mountPath"]: it["secretName"] for it in stage.kubernetes.get("secretAsVolume", [])}
        assert all(it["optional"] for it in stage.kubernetes.get("secretAsVolume", []))
        variables = {
            "RESPROUT_STORAGE_SECRETS": SECRETS_FOLDER,
            "RESPROUT_STORAGE_PUBLISHING_SECRETS": PUBLISHING_FOLDER,
            "RESPROUT_SIGNING_SECRETS": SIGNING_FOLDER,
        }
        environment = {it["name"]: it["value"] for it in stage.container.get("env", ())}
        environment.pop("RESPROUT_IMAGES", None)  # names no secret
        assert environment == {name: folder for name, folder in variables.items() if folder in mounted}
        assert set(mounted) <= set(variables.values())
        assert not stage.kubernetes.get("secretAsEnv")
        return set(mounted.values()) - {SIGNING_SECRET}

    given, there = by_component(compiled.stages, secrets), {stage.component for stage in compiled.stages}
    reading = {"fetch-teacher", "fetch-test-set", "collect-images"}
    # these keep checkpoints, with a secret of their own that need reach nothing else
    keeping = {"synthesize", "prune", "recover"}
    section, publishes = compiled.section, "publish" in there
    assert given["plan"] == {section.storage_secret, *([section.publishing_secret] if publishes else [])}
    assert {name for name, found in given.items() if found == {section.publishing_secret}} == {"publish"} & there
    assert {name for name, found in given.items() if found == {section.storage_secret}} - {"plan"} == reading & there
    assert {name for name, found in given.items() if found == {section.checkpoint_secret}} == keeping & there
    assert sum(map(bool, given.values())) == len(({"plan", "publish"} | reading | keeping) & there)


def test_no_stage_runs_as_root(compiled: Compiled):
    for stage in compiled.stages:
        assert stage.kubernetes["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": "65532",
            "runAsGroup": "65532",
        }


def test_pods_can_be_told_apart_by_their_stage(compiled: Compiled):
    queue = {"kueue.x-k8s.io/queue-name": compiled.section.queue} if compiled.section.queue else {}
    for stage in compiled.stages:
        assert stage.kubernetes["podMetadata"]["labels"] == {
            "app.kubernetes.io/part-of": "resprout",
            "app.kubernetes.io/component": stage.component,
            **queue,
        }


def test_each_stage_has_its_image_and_the_secrets_to_pull_it(compiled: Compiled):
    section = compiled.section
    for stage in compiled.with_gpu():
        assert stage.container["image"] == (section.gpu_image or GPU_IMAGE)
    for stage in compiled.without():
        assert stage.container["image"] == (section.cpu_image or CPU_IMAGE)
    for stage in compiled.stages:
        pulled = [it["secretName"] for it in stage.kubernetes.get("imagePullSecret", ())]
        assert pulled == list(section.image_pull_secrets)


def test_our_own_images_never_move():
    for image in (CPU_IMAGE, GPU_IMAGE):
        assert PlacementSection(cpu_image=image).cpu_image == image


@pytest.mark.parametrize("image", ["resprout/cpu", "resprout/cpu:latest", "registry:5000/resprout/cpu"])
def test_an_image_that_may_be_another_tomorrow_is_refused(image: str):
    with pytest.raises(RecipeError, match=r"placement\.cpu_image: .*must end in a digest"):
        recipe_module.validate(Recipe, {"teacher": {"source": "x"}, "placement": {"cpu_image": image}}, "recipe")


def test_more_shards_than_kfp_can_show_are_refused_with_the_way_out():
    with pytest.raises(RecipeError, match=r"placement\.num_shards: is 9, and a run may have 8") as refused:
        recipe_module.validate(Recipe, {"teacher": {"source": "x"}, "placement": {"num_shards": 9}}, "recipe")
    assert "set placement.gpus" in refused.value.now


def test_enough_gpu_memory_and_a_nodes_labels_are_asked_for():
    wanted = affinity(PlacementSection(gpu_memory_gib=40, gpu_node_selector={"zone": "a"}))
    (term,) = wanted["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "zone", "operator": "In", "values": ["a"]},
        {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["40959"]},
    ]
    assert affinity(PlacementSection()) == {}


def test_without_a_gpu_nothing_of_one_is_asked_for():
    said = asked(PlacementSection(gpus=0, gpu_memory_gib=40))
    assert (said["gpus"], said["synthesis_gpus"]) == ("0", "0")
    assert said["gpu_tolerations"] == []
    assert said["gpu_affinity"] == {}


def test_what_a_run_may_say_is_not_compiled_in():
    said: dict[str, Any] = {
        "num_shards": 4,
        "gpu_type": "nvidia.com/mig-1g.10gb",
        "gpus": 2,
        "gpu_memory_gib": 40,
        "gpu_node_selector": {"zone": "a"},
        "gpu_tolerations": (),
        "gpu_stage_memory": "32Gi",
        "gpu_stage_cpus": "8",
        "checkpoints": "s3://checkpoints/a",
    }
    assert set(said) == AT_SUBMIT
    assert compiled_in(PlacementSection(**said)) == PlacementSection()
    assert compiled_in(PlacementSection(**said, retries=5)) == PlacementSection(retries=5)
    # of stages without a GPU a run can say nothing
    used = {"use_gpu_nodes": True, "gpu_tolerations": ()}
    assert compiled_in(PlacementSection(**{**said, **used})) == PlacementSection(**used)


def test_compiling_gives_the_same_bytes_in_every_process(tmp_path: Path):
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "compile", "recipes/demo.yaml", "-o", str(tmp_path / name)],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
    assert len({(tmp_path / name).read_bytes() for name in ("a.yaml", "b.yaml", "c.yaml")}) == 1


def test_what_publishes_alone_has_the_signing_key_and_is_told_what_made_the_result(compiled: Compiled):
    for stage in compiled.stages:
        mounted = [it for it in stage.kubernetes.get("secretAsVolume", []) if it["secretName"] == SIGNING_SECRET]
        environment = {it["name"]: it["value"] for it in stage.container.get("env", ())}
        if stage.component != "publish":
            assert not mounted
            assert set(environment) <= {"RESPROUT_STORAGE_SECRETS", "RESPROUT_STORAGE_PUBLISHING_SECRETS"}
            continue
        assert [(it["mountPath"], it["optional"]) for it in mounted] == [(SIGNING_FOLDER, True)]
        assert environment["RESPROUT_SIGNING_SECRETS"] == SIGNING_FOLDER
        assert environment["RESPROUT_IMAGES"].split() == list(images(compiled.section))
        assert stage.kubernetes["fieldPathAsEnv"] == [
            {"name": "RESPROUT_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
        ]
