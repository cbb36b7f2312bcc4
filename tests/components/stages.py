"""Running components as the pipeline does, on artifacts in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from kfp import dsl

from components.fetch_test_set import fetch_test_set
from components.merge_dreams import merge_dreams
from components.plan_shards import plan_shards
from components.prune import prune
from components.synthesize import synthesize
from resprout import datasets
from resprout.types import LabelledImages, Teacher

# as KFP hands them over: ints inside a dict are floats
SYNTHESIS = {
    "method": "deep_inversion",
    "num_images": 12.0,
    "num_held_out": 4.0,
    "group_size": 8.0,
    "iterations": 3.0,
    "precision": "float32",
}
RECOVERY = {"method": "distillation", "epochs": 2.0, "batch_size": 6.0, "precision": "float32"}
PRUNING = {"method": "global_magnitude", "sparsity": 0.5}
IMAGES = {"method": "images", "data": "s3://bucket/train", "num_images": 24.0, "num_held_out": 8.0}


class Stage:
    """Runs components in a folder, each output named as in the pipeline."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, kind: type[dsl.Artifact], name: str) -> Any:
        return kind(name=name, uri=str(self.folder / name), metadata={})

    def metrics(self) -> dsl.Metrics:
        return self(dsl.Metrics, "metrics")


def pruned(stage: Stage) -> dsl.Model:
    student = stage(dsl.Model, "student")
    prune.python_func(
        teacher=stage(dsl.Model, "teacher"), section=PRUNING, seed=0, student=student, metrics=stage.metrics()
    )
    return student


def planned(synthesis: dict[str, Any], num_shards: int, student_aware: bool = False, **others: Any) -> list[int]:
    sections = {"pruning": PRUNING, "recovery": {}, "evaluation": {}, "gate": {}, "publishing": {}}
    sections |= {"teacher": {"source": "torchvision://resnet18"}, "synthesis": synthesis}
    switches = {"collected": False, "student_aware": student_aware, "pruned_on_dreams": False, "published": False}
    switches["num_shards"] = num_shards
    numbers: list[int] = plan_shards.python_func(**(sections | switches | others))
    return numbers


def dreamt(stage: Stage, section: dict[str, Any] = SYNTHESIS, num_shards: int = 1, **inputs: Any) -> dsl.Metrics:
    shards = []
    for index in planned(section, num_shards, "student" in inputs):
        shards.append(stage(dsl.Dataset, f"shard-{index}-of-{num_shards}"))
        synthesize.python_func(
            teacher=stage(dsl.Model, "teacher"),
            statistics=stage(dsl.Artifact, "statistics"),
            section=section,
            seed=0,
            shard_index=index,
            num_shards=num_shards,
            checkpoints="",
            shard=shards[-1],
            metrics=stage.metrics(),
            **inputs,
        )
    metrics = stage.metrics()
    merge_dreams.python_func(shards=shards, dreams=stage(dsl.Dataset, "dreams"), metrics=metrics)
    return metrics


def labelled(stage: Stage, section: dict[str, Any]) -> dsl.Dataset:
    test_set = stage(dsl.Dataset, "test_set")
    fetch_test_set.python_func(
        teacher=stage(dsl.Model, "teacher"), section=section, test_set=test_set, metrics=stage.metrics()
    )
    return test_set


def save_images(path: Path, tiny_images: Any, teacher: Teacher) -> None:
    images, labels = tiny_images
    pixels = (teacher.info.input.to_pixels(images) * 255).round().to(torch.uint8)
    datasets.save_labelled(LabelledImages(pixels, labels, teacher.info.class_names), path)
