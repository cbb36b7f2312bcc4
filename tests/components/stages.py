"""Running components as the pipeline does, on artifacts in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from kfp import dsl

from components.evaluate import evaluate
from components.fetch_test_set import fetch_test_set
from components.merge_dreams import merge_dreams
from components.plan import Plan, plan
from components.prune import prune
from components.recover import recover
from components.synthesize import synthesize
from resprout import artifacts, datasets
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

# the artifacts that each component of a pipeline is given
GIVEN = {
    "extract-statistics": ("teacher",),
    "fetch-test-set": ("teacher",),
    "collect-images": ("teacher",),
    "synthesize": ("teacher", "statistics"),
    "merge-dreams": ("shards",),
    "prune": ("teacher", "dreams"),
    "scan-sensitivity": ("teacher", "dreams"),
    "recover": ("teacher", "student", "dreams"),
    "evaluate": ("teacher", "statistics", "dreams", "student", "repaired", "recovered", "test_set"),
    "gate": ("evaluation",),
    "publish": ("recovered", "evaluation", "report"),
}


class Stage:
    """Runs components in a folder, each output named as in the pipeline."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logged: list[dsl.Metrics] = []

    def __call__(self, kind: type[dsl.Artifact], name: str) -> Any:
        return kind(name=name, uri=str(self.folder / name), metadata={})

    def digests(self, *names: str) -> dict[str, str]:
        """Of what lies there now, as the stages that made it said."""
        found = {name: self.folder / name for name in names}
        return {name: artifacts.digest_of(folder) for name, folder in found.items() if folder.exists()}

    def metrics(self) -> dsl.Metrics:
        self.logged.append(self(dsl.Metrics, f"metrics-{len(self.logged)}"))
        return self.logged[-1]


def planned(kind: str = "compress", **inputs: Any) -> Plan:
    """What `plan` hands on for a run whose form was filled in like this."""
    usual = {"teacher": "torchvision://resnet18", "seed": 0, "recipe": {}, "placement": {}}
    made: Plan = plan.python_func(kind=kind, **usual | inputs)
    return made


def pruned(
    stage: Stage,
    section: dict[str, Any] = PRUNING,
    recovery: dict[str, Any] = RECOVERY,
    seed: int = 0,
    checkpoints: str = "",
) -> tuple[dsl.Model, dsl.Metrics]:
    student, metrics = stage(dsl.Model, "student"), stage.metrics()
    prune.python_func(
        teacher=stage(dsl.Model, "teacher"),
        dreams=stage(dsl.Dataset, "dreams"),
        digests=stage.digests("teacher", "dreams"),
        section=section,
        recovery=recovery,
        seed=seed,
        gpus="0",
        checkpoints=checkpoints,
        student=student,
        metrics=metrics,
    )
    return student, metrics


def dreamt(
    stage: Stage, section: dict[str, Any] = SYNTHESIS, num_shards: int = 1, checkpoints: str = ""
) -> dsl.Metrics:
    shards, made = [], []
    for index in range(num_shards):
        shards.append(stage(dsl.Dataset, f"shard-{index}-of-{num_shards}"))
        handed_on = synthesize.python_func(
            teacher=stage(dsl.Model, "teacher"),
            statistics=stage(dsl.Artifact, "statistics"),
            digests=stage.digests("teacher", "statistics"),
            section=section,
            seed=0,
            share=f"{index + 1}/{num_shards}",
            gpus="0",
            checkpoints=checkpoints,
            shard=shards[-1],
        )
        made.append(handed_on.digests)
    metrics = stage.metrics()
    # in whatever order they come
    merge_dreams.python_func(shards=shards, digests=made[::-1], dreams=stage(dsl.Dataset, "dreams"), metrics=metrics)
    return metrics


def labelled(stage: Stage, section: dict[str, Any]) -> dsl.Dataset:
    test_set = stage(dsl.Dataset, "test_set")
    fetch_test_set.python_func(
        teacher=stage(dsl.Model, "teacher"),
        digests=stage.digests("teacher"),
        section=section,
        identity="",
        test_set=test_set,
    )
    return test_set


def recovered(stage: Stage, student: dsl.Model, seed: int = 0, checkpoints: str = "") -> dict[str, dsl.Model]:
    """The repaired and the recovered student."""
    students = {name: stage(dsl.Model, name) for name in ("repaired", "recovered")}
    recover.python_func(
        teacher=stage(dsl.Model, "teacher"),
        dreams=stage(dsl.Dataset, "dreams"),
        student=student,
        digests={**stage.digests("teacher", "dreams"), "student": artifacts.digest_of(student.path)},
        section=RECOVERY,
        seed=seed,
        gpus="0",
        checkpoints=checkpoints,
        metrics=stage.metrics(),
        **students,
    )
    return students


def evaluated(
    stage: Stage, students: dict[str, dsl.Model], test_set: dsl.Dataset, section: dict[str, Any]
) -> dict[str, Any]:
    """What evaluation leaves, and the digests that it hands on; `students` are student, repaired and recovered."""
    outputs = {
        "evaluation": stage(dsl.Artifact, "evaluation"),
        "metrics": stage.metrics(),
        "confusion": stage(dsl.ClassificationMetrics, "confusion"),
        "report": stage(dsl.HTML, "report"),
        "summary": stage(dsl.Markdown, "summary"),
    }
    made = {name: artifacts.digest_of(student.path) for name, student in students.items()}
    handed_on = evaluate.python_func(
        teacher=stage(dsl.Model, "teacher"),
        statistics=stage(dsl.Artifact, "statistics"),
        dreams=stage(dsl.Dataset, "dreams"),
        test_set=test_set,
        digests={**stage.digests("teacher", "statistics", "dreams"), **made},
        test_set_digests=stage.digests("test_set"),
        fetched_from="s3://bucket/teachers/net",
        section=section,
        gpus="0",
        **students,
        **outputs,
    )
    return {**outputs, "digests": handed_on.digests}


def save_images(path: Path, tiny_images: Any, teacher: Teacher) -> None:
    images, labels = tiny_images
    pixels = (teacher.info.input.to_pixels(images) * 255).round().to(torch.uint8)
    datasets.save_labelled(LabelledImages(pixels, labels, teacher.info.class_names), path)
