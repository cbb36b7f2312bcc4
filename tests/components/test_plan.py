"""What is decided before anything is computed: what is refused, and what each stage is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from kfp import dsl

from components.collect_images import collect_images
from components.fetch_teacher import fetch_teacher
from components.fetch_test_set import fetch_test_set
from components.plan import plan
from pipeline.embedded_storage import Server
from resprout import artifacts, recipe
from resprout.errors import ArtifactError, ResproutError
from resprout.recipe import PublishingSection
from resprout.recipe.form import from_inputs
from resprout.storage import ObjectAddress, Storage
from resprout.types import Teacher
from tests.components.stages import Stage, planned, save_images

SECTIONS = ("teacher", "synthesis", "pruning", "recovery", "evaluation", "gate", "publishing")
# as KFP hands it over: ints inside a dict are floats
RECIPE = {
    "synthesis": {"num_images": 256.0, "num_held_out": 0.0, "group_size": 64.0},
    "recovery": {"epochs": 3.0},
    "gate": {"min_sparsity": 0.5},
}


@pytest.fixture
def place(server: Server, storage_configured: None, tmp_path: Path) -> ObjectAddress:
    return ObjectAddress("resprout", f"tests/{tmp_path.name}")


@pytest.fixture
def storage(server: Server) -> Storage:
    return Storage(server.settings)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"recipe": {"recovery": {"epoch": 3}}}, "recovery.epoch: no such field; did you mean epochs?"),
        ({"recipe": {"gate": {"min_agreement": 2.0}}, "sparsity": "1.5"}, "pruning.sparsity"),
        ({"recipe": {"gate": {"min_agreement": 2.0}}, "sparsity": "1.5"}, "gate.min_agreement"),
        ({"recipe": {"gate": {"max_latency_ratio": 1.0}}}, "needs evaluation.measure_latency"),
        ({"recipe": {"synthesis": {"student_weight": 1.0}}}, "synthesis.student_weight: no such field"),
        ({"recipe": {"synthesis": {"method": "images", "data": "s3://b/train"}}}, "holds synthesis.data"),
        ({"kind": "compress-images", "images": ""}, "synthesis.data: is required"),
        (
            {"kind": "compress-images", "images": "s3://b/train/", "test_set": "s3://b/train"},
            "synthesis.data: is evaluation.data",
        ),
        ({"recipe": {"seed": 1}}, "recipe: holds seed"),
        ({"seed": -1}, "seed: "),
        ({"teacher": ""}, "teacher.source: is required"),
        ({"publish_to": "models"}, "publishing.to: "),
        ({"placement": {"num_shards": 9.0}}, "placement.num_shards: is 9, and a run may have 8"),
        ({"placement": {"num_shards": 8.0}, "recipe": RECIPE}, "8 shards cannot share 4 groups"),
        ({"placement": {"retries": 3.0}}, "placement: holds retries"),
        ({"test_set": "s3://bucket/data"}, "no object storage is configured"),
    ],
    ids=str,
)
def test_a_run_that_makes_no_sense_is_refused(inputs: dict[str, Any], said: str):
    with pytest.raises(ResproutError, match=re.escape(said)):
        planned(**inputs)


def test_each_stage_is_told_its_section_and_nothing_that_is_its_default():
    inputs = {"teacher": "torchvision://resnet18", "recipe": RECIPE, "sparsity": "0.9", "seed": 3, "placement": {}}
    wanted = from_inputs("compress", {**inputs, "test_set": "", "publish_to": ""})
    wanted = wanted.model_copy(update={"publishing": PublishingSection(name="resnet18")})

    made = planned(**inputs)

    for name in SECTIONS:
        said = getattr(made, name)
        assert json.loads(json.dumps(said)) == said
        assert None not in said.values(), "KFP's executor knows no null"
        assert recipe.section(name, said) == getattr(wanted, name), name
    assert made.pruning == {"method": "optimal_brain", "sparsity": 0.9}
    assert made.recovery == {"method": "distillation", "epochs": 3}
    assert made.gate == {"min_sparsity": 0.5}
    assert made.publishing == {"name": "resnet18"}, "what it would be called is settled"
    assert (made.teacher_identity, made.images_identity, made.test_set_identity) == ("", "", "")


@pytest.mark.parametrize("rounds", [1, 2])
def test_pruning_is_told_of_recovery_only_where_rounds_recover_in_between(rounds: int):
    made = planned(recipe={"recovery": {"epochs": 3.0}, "pruning": {"rounds": rounds}})
    assert made.between_rounds == (made.recovery if rounds > 1 else {})
    assert made.recovery["epochs"] == 3


def test_every_output_is_of_the_type_that_it_says():
    made = planned(placement={"checkpoints": "s3://checkpoints/a", "num_shards": 2.0})
    outputs = plan.component_spec.outputs
    for name, value in made._asdict().items():
        kind = {"String": str, "Integer": int, "Dict": dict, "List": list}[outputs[name].type.partition("[")[0].title()]
        assert isinstance(value, kind), name
    assert made.checkpoints == "s3://checkpoints/a"
    assert planned().checkpoints == ""


@pytest.mark.parametrize(("wanted", "shards"), [(1, ["1/1"]), (3, ["1/3", "2/3", "3/3"])])
def test_each_shard_has_its_share(wanted: int, shards: list[str]):
    assert planned(recipe=RECIPE, placement={"num_shards": float(wanted)}).shards == shards


@pytest.mark.usefixtures("storage_configured")
def test_real_images_need_no_shard_however_many_are_wanted(
    storage: Storage, place: ObjectAddress, tmp_path: Path, tiny_images: Any, tiny_teacher: Teacher
):
    save_images(tmp_path / "train.safetensors", tiny_images, tiny_teacher)
    storage.upload(tmp_path / "train.safetensors", place / "train.safetensors")

    made = planned("compress-images", images=f"{place}/train.safetensors", placement={"num_shards": 4.0})

    assert made.shards == []
    assert made.synthesis["method"] == "images"
    assert made.images_identity == f"sha256:{artifacts.sha256_of(tmp_path / 'train.safetensors')}"


def test_what_gpu_stages_ask_for_is_said_as_kfp_takes_it():
    made = planned(placement={"gpus": 4.0, "gpu_type": "nvidia.com/mig-1g.10gb", "gpu_stage_memory": "24Gi"})
    assert (made.gpu_type, made.gpus, made.synthesis_gpus) == ("nvidia.com/mig-1g.10gb", "1", "4")
    assert (made.gpu_stage_memory, made.gpu_stage_cpus) == ("24Gi", "3")
    assert made.gpu_tolerations == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert made.gpu_affinity == {}


def test_people_are_told_what_was_resolved_and_no_secret(capsys: pytest.CaptureFixture[str]):
    source = "https://someone:hunter2@example.org/net.safetensors?signature=c0ffee"
    teacher = {"sha256": "0" * 64, "architecture": "resnet18", "input": {"shape": [3.0, 32.0, 32.0]}}

    made = planned(teacher=source, recipe={"teacher": teacher}, seed=7)

    said = capsys.readouterr().out
    assert "recipe      net, seed 7, pruning by optimal_brain" in said
    assert "teacher     https://example.org/net.safetensors" in said
    assert "hunter2" not in said
    assert "c0ffee" not in said
    assert made.teacher["source"] == source, "who fetches it needs them"


def test_a_teachers_folder_is_fetched_as_it_was_planned_and_no_other(
    storage: Storage, place: ObjectAddress, tmp_path: Path, tiny_teacher: Teacher, capsys: pytest.CaptureFixture[str]
):
    artifacts.save_teacher(tiny_teacher, tmp_path / "net")
    storage.upload_folder(tmp_path / "net", place / "net")
    stage = Stage(tmp_path)

    def fetch(section: dict[str, Any], identity: str) -> None:
        teacher = stage(dsl.Model, "teacher")
        fetch_teacher.python_func(section=section, identity=identity, teacher=teacher, metrics=stage.metrics())

    made, again = planned(teacher=f"{place}/net"), planned(teacher=f"{place}/net")
    fetch(made.teacher, made.teacher_identity)
    assert made == again
    assert made.publishing["name"] == "net"
    assert re.fullmatch("folder:[0-9a-f]{64}", made.teacher_identity)
    assert f"teacher     {place}/net {made.teacher_identity}" in capsys.readouterr().out

    with torch.no_grad():
        next(tiny_teacher.network.parameters()).mul_(1.5)
    artifacts.save_teacher(tiny_teacher, tmp_path / "newer")
    storage.upload_folder(tmp_path / "newer", place / "net")
    newer = planned(teacher=f"{place}/net")
    assert newer.teacher == made.teacher
    assert newer.teacher_identity != made.teacher_identity, "a new file at an old address is seen"
    with pytest.raises(ArtifactError, match="net has changed since the run was planned"):
        fetch(made.teacher, made.teacher_identity)


def test_images_are_those_that_were_planned(
    storage: Storage, place: ObjectAddress, stage: Stage, tiny_images: Any, tiny_teacher: Teacher
):
    save_images(stage.folder / "data.safetensors", tiny_images, tiny_teacher)
    storage.upload(stage.folder / "data.safetensors", place / "train.safetensors")
    save_images(stage.folder / "test.safetensors", [some[:32] for some in tiny_images], tiny_teacher)
    storage.upload(stage.folder / "test.safetensors", place / "test.safetensors")
    address = {name: f"{place}/{name}.safetensors" for name in ("train", "test")}
    numbers = {"num_images": 24.0, "num_held_out": 8.0}
    made = planned("compress-images", images=address["train"], test_set=address["test"], recipe={"synthesis": numbers})
    assert "" != made.images_identity != made.test_set_identity != ""
    storage.upload(stage.folder / "data.safetensors", place / "twin.safetensors")
    with pytest.raises(ResproutError, match=r"synthesis\.data: .*train\.safetensors holds the very bytes of .*twin"):
        planned("compress-images", images=address["train"], test_set=f"{place}/twin.safetensors")

    def collect(identity: str) -> None:
        collect_images.python_func(
            teacher=stage(dsl.Model, "teacher"),
            digests=stage.digests("teacher"),
            section=made.synthesis,
            identity=identity,
            seed=0,
            dreams=stage(dsl.Dataset, "dreams"),
            metrics=stage.metrics(),
        )

    def fetch(identity: str) -> None:
        fetch_test_set.python_func(
            teacher=stage(dsl.Model, "teacher"),
            digests=stage.digests("teacher"),
            section=made.evaluation,
            identity=identity,
            test_set=stage(dsl.Dataset, "test_set"),
        )

    for call, identity in ((collect, made.images_identity), (fetch, made.test_set_identity)):
        call(identity)
        with pytest.raises(ArtifactError, match="has changed since the run was planned"):
            call("sha256:of-others")


def test_where_nothing_lies_nothing_is_planned(place: ObjectAddress):
    for inputs in ({"teacher": f"{place}/teacher"}, {"test_set": f"{place}/data"}):
        with pytest.raises(ResproutError, match="neither an object of that name nor one below it"):
            planned(**inputs)


@pytest.mark.parametrize("version", [None, "1"])
def test_a_version_that_is_taken_is_refused_before_the_work(
    storage: Storage, place: ObjectAddress, version: str | None
):
    taken = json.dumps({"files": {}}).encode()
    assert storage.claim(place / "resnet18" / "1" / "published.json", taken)
    publishing = {} if version is None else {"publishing": {"version": version}}

    if version is None:
        assert planned(publish_to=str(place)).publishing == {"to": str(place), "name": "resnet18"}
    else:
        with pytest.raises(ResproutError, match=r"publishing\.version 1 exists"):
            planned(publish_to=str(place), recipe=publishing)
