"""Images that come from outside: those to be judged on, and those in the place of dreams."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from kfp import dsl
from PIL import Image

from components.collect_images import collect_images
from resprout import artifacts, datasets
from resprout.errors import DatasetError
from resprout.progress import remark
from resprout.types import Teacher
from tests.components.stages import (
    IMAGES,
    Stage,
    evaluated,
    labelled,
    pruned,
    save_images,
)


def test_real_images_take_the_place_of_dreams(stage: Stage, tiny_images: Any, tiny_teacher: Teacher):
    save_images(stage.folder / "train.safetensors", tiny_images, tiny_teacher)
    section = IMAGES | {"data": str(stage.folder / "train.safetensors")}
    dreams, metrics = stage(dsl.Dataset, "dreams"), stage.metrics()
    collect_images.python_func(
        teacher=stage(dsl.Model, "teacher"),
        digests=stage.digests("teacher", "statistics"),
        section=section,
        identity="",
        seed=0,
        dreams=dreams,
        metrics=metrics,
    )

    images = artifacts.load_dreams(dreams.path)
    assert images.source == section["data"]
    assert (images.num_training, images.num_held_out) == (24, 8)
    assert metrics.metadata == {"images": 24, "held_out_images": 8}
    assert dreams.metadata["display_name"] == "32 real images, in the place of dreams"
    manifest = artifacts.read_manifest(Path(dreams.path))
    assert manifest.section["method"] == "images"
    assert manifest.seed == 0
    assert not manifest.inputs, "read from outside"


@pytest.mark.parametrize("twin", ["copy", "link", "folder"])
def test_nobody_is_judged_on_what_was_learnt_from_under_another_name(
    stage: Stage, tiny_images: Any, tiny_teacher: Teacher, twin: str
):
    test_real_images_take_the_place_of_dreams(stage, tiny_images, tiny_teacher)
    train, other = stage.folder / "train.safetensors", stage.folder / f"{twin}.safetensors"
    if twin == "folder":
        written = datasets.load_labelled(train, info=tiny_teacher.info)
        for index, (image, label) in enumerate(zip(written.images, written.labels.tolist(), strict=True)):
            folder = other / written.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index}.bmp")
    else:
        (shutil.copy if twin == "copy" else os.symlink)(train, other)
    test_set = labelled(stage, {"data": str(other)})
    student, _ = pruned(stage)
    students = dict.fromkeys(("student", "repaired", "recovered"), student)

    with pytest.raises(DatasetError, match="32 of 256 test images are also among the images trained on"):
        evaluated(stage, students, test_set, {})


def test_how_classes_were_matched_is_printed(
    stage: Stage, tiny_images: Any, tiny_teacher: Teacher, capsys: pytest.CaptureFixture[str]
):
    save_images(stage.folder / "data.safetensors", tiny_images, tiny_teacher)
    labelled(stage, {"data": str(stage.folder / "data.safetensors")})
    test_real_images_take_the_place_of_dreams(stage, tiny_images, tiny_teacher)

    mapping = ", ".join(f"{name} -> {label}" for label, name in enumerate(tiny_teacher.info.class_names))
    told = [text for line in capsys.readouterr().out.splitlines() if (text := remark(line))]
    assert told == [f"classes map to logits by name: {mapping}"] * 2


def test_without_a_test_set_there_is_an_artifact_that_says_so(stage: Stage):
    nothing = labelled(stage, {})

    assert artifacts.load_test_set(nothing.path) is None
    assert nothing.metadata["display_name"] == "no labelled test set"


def test_how_a_test_set_is_evaluated_is_not_part_of_it(stage: Stage, tiny_images: Any, tiny_teacher: Teacher):
    save_images(stage.folder / "data.safetensors", tiny_images, tiny_teacher)
    section = {"data": str(stage.folder / "data.safetensors")}

    digests = {artifacts.digest_of(labelled(stage, {**section, "batch_size": size}).path) for size in (7.0, 250.0)}
    assert len(digests) == 1
    assert labelled(stage, section).metadata["notes"].startswith("classes map to logits by name: red -> 0")
    images = artifacts.load_test_set(stage.folder / "test_set")
    assert images is not None
    assert torch.equal(images.labels, tiny_images[1])
    assert images.class_names == tiny_teacher.info.class_names
