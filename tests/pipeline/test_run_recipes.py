"""What recipes make of a run, and which are refused: the whole graph, its stages started warm."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from pipeline.embedded_storage import Server
from resprout import artifacts, datasets
from resprout.storage import ObjectAddress, Storage
from resprout.types import LabelledImages, Teacher
from tests.pipeline.running import write_recipe
from tests.pipeline.warm import run_warm

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path: Path, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor]) -> Path:
    return write_recipe(tmp_path, tiny_teacher, tiny_images)


@pytest.mark.parametrize(
    "change",
    ["teacher.source=s3://b/t", "evaluation.data=s3://b/d", "publishing.to=s3://b", "placement.checkpoints=s3://b"],
)
def test_storage_that_is_named_must_be_configured(recipe: Path, tmp_path: Path, change: str):
    exit_code, output = run_warm(recipe, "--runs", tmp_path / "runs", "--set", change)

    assert exit_code == 1
    assert "error: no object storage is configured" in output
    assert not (tmp_path / "runs").exists()


def test_more_shards_than_groups_are_refused_before_synthesis(recipe: Path, tmp_path: Path):
    exit_code, output = run_warm(recipe, "--runs", tmp_path / "runs", "--set", "placement.num_shards=5")

    assert exit_code == 1
    assert "error: placement.num_shards: 5 shards cannot share 4 groups of dreams" in output
    assert "  now: use 1 to 4 shards" in output


def test_without_data_held_out_dreams_give_the_verdict(recipe: Path, tmp_path: Path):
    fields = yaml.safe_load(recipe.read_text())
    del fields["evaluation"]
    fields["synthesis"]["iterations"] = 5
    fields["recovery"]["epochs"] = 2
    recipe.write_text(yaml.safe_dump(fields))

    exit_code, output = run_warm(recipe, "--output", tmp_path / "out")

    assert exit_code == 0, output
    inputs = artifacts.read_manifest(tmp_path / "out" / "dreams").inputs
    assert [record["name"] for record in inputs] == ["teacher", "statistics"]
    assert "top-1" not in output
    assert "agrees with the teacher" in output


def test_in_rounds_it_is_pruned_with_the_dreams(recipe: Path, tmp_path: Path):
    fields = yaml.safe_load(recipe.read_text())
    fields["pruning"] = {"method": "lamp", "sparsity": 0.8, "rounds": 2, "round_epochs": 2}
    recipe.write_text(yaml.safe_dump(fields))

    exit_code, output = run_warm(recipe, "--output", tmp_path / "out")

    assert exit_code == 0, output
    inputs = artifacts.read_manifest(tmp_path / "out" / "student").inputs
    assert [record["name"] for record in inputs] == ["teacher", "dreams"]
    student, model = (artifacts.load_student(tmp_path / "out" / name) for name in ("student", "model"))
    assert student.mask.sparsity == pytest.approx(0.8, abs=1e-3)
    assert all(torch.equal(kept, model.mask.keep[name]) for name, kept in student.mask.keep.items())
    assert re.search(r"^pruning +80.0 % of [\d,]+ weights, lamp, rounds: 2", output, re.MULTILINE), output


def test_real_images_take_the_place_of_dreams_and_everybody_is_told(
    recipe: Path, tmp_path: Path, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor]
):
    pixels = (tiny_teacher.info.input.to_pixels(tiny_images[0][64:160]) * 255).round().to(torch.uint8)
    labelled = LabelledImages(pixels, tiny_images[1][64:160], tiny_teacher.info.class_names)
    datasets.save_labelled(labelled, tmp_path / "train.safetensors")
    fields = yaml.safe_load(recipe.read_text())
    fields["synthesis"] = {
        "method": "images",
        "data": str(tmp_path / "train.safetensors"),
        "num_images": 64,
        "num_held_out": 16,
    }
    fields["pruning"] = {"method": "teacher_guided", "sparsity": 0.6}
    fields["recovery"] |= {"epochs": 2, "target_weight": 1.0}
    recipe.write_text(yaml.safe_dump(fields))

    exit_code, output = run_warm(recipe, "--output", tmp_path / "out", "--set", "placement.num_shards=3")

    assert exit_code == 0, output
    assert re.search(r"^images +64 real images to train on, 16 held out: nothing is synthesized", output, re.MULTILINE)
    assert not re.search(r"^dreams ", output, re.MULTILINE)
    assert re.search(r"^pruning +60.0 % of [\d,]+ weights, teacher_guided", output, re.MULTILINE), output
    assert "64 labelled images, 16 held-out images" in output
    assert "real images were learnt from, not dreams" in output
    assert "no training image" not in output
    images = artifacts.load_dreams(tmp_path / "out" / "dreams")
    assert images.source == str(tmp_path / "train.safetensors")
    assert images.targets.bincount().tolist() == [20] * 4
    assert "not data-free" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("flags", [(), ("-v",)], ids=["quiet", "verbose"])
def test_a_stage_that_refuses_is_told_in_three_lines(
    tmp_path: Path, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor], flags: Sequence[str]
):
    for module in tiny_teacher.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    recipe = write_recipe(tmp_path, tiny_teacher, tiny_images)

    exit_code, output = run_warm(recipe, "--runs", tmp_path / "runs", *flags)

    assert exit_code == 1
    *before, what, why, now = output.rstrip().splitlines()
    assert what.startswith("error: cifar_resnet8")
    assert "never trained" in what
    assert why.startswith("  why: ")
    assert now.startswith("  now: ")
    assert any("Traceback" in line for line in before) == bool(flags)


@pytest.mark.usefixtures("storage_configured")
def test_a_result_that_cannot_be_published_is_kept(recipe: Path, tmp_path: Path, server: Server):
    prefix, sdk = ObjectAddress("unfinished", "models"), Storage(server.settings).sdk
    sdk.make_bucket(prefix.bucket)
    resource = f"arn:aws:s3:::{prefix.bucket}/*/published.json"
    refusing = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": resource}
    sdk.set_bucket_policy(prefix.bucket, json.dumps({"Version": "2012-10-17", "Statement": [refusing]}))
    quick = ("--set", "synthesis.iterations=2", "--set", "recovery.epochs=1")
    where = ("--set", f"publishing.to={prefix}", "--set", "publishing.version='1'")

    exit_code, output = run_warm(recipe, "--output", tmp_path / "out", *quick, *where)

    assert exit_code == 1
    assert "cannot write s3://unfinished/models/tiny/1/published.json" in output
    assert output.rstrip().endswith(f"kept: the result, which is in {tmp_path / 'out'}")
    assert artifacts.load_student(tmp_path / "out" / "model").mask.sparsity == pytest.approx(0.6, abs=1e-3)
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "publication.json").exists()


def test_a_test_set_that_does_not_fit_is_refused_before_the_work(recipe: Path, tmp_path: Path, tiny_teacher: Teacher):
    names = ("cat", "dog", "cow", "hen")
    images = LabelledImages(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.arange(4), names)
    datasets.save_labelled(replace(images), tmp_path / "data.safetensors")

    exit_code, output = run_warm(recipe, "--runs", tmp_path / "runs")

    assert exit_code == 1
    assert "error: " in output
    assert "'cat'" in output
    assert "dreams " not in output
