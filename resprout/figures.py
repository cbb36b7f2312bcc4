"""What components log of each stage's result: plain numbers whose names say their units, and a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from resprout.batchnorm import batch_norm_layers
from resprout.confusion import as_matrix
from resprout.evaluation import percent, summary_rows, verdict
from resprout.masking import whole_layers
from resprout.types import (
    BNStatistics,
    DreamSet,
    Evaluation,
    LabelledImages,
    Sensitivity,
    SparsityChoice,
    Student,
    Teacher,
)

MOST_CLASSES_TO_LOOK_AT = 100


def of_teacher(teacher: Teacher) -> dict[str, float]:
    """How large the network is, and how many BatchNorm layers remember its training data."""
    return {
        "parameters": sum(parameter.numel() for parameter in teacher.network.parameters()),
        "batchnorm_layers": len(batch_norm_layers(teacher.network)),
        "classes": teacher.info.num_classes,
    }


def name_of_teacher(teacher: Teacher) -> dict[str, str]:
    """What it is and what it takes, in words, and what fetching chose."""
    return {
        "display_name": f"teacher, {teacher.info.architecture}",
        "architecture": teacher.info.architecture,
        "input": "x".join(str(size) for size in teacher.info.input.shape),
        **_noted(teacher.notes),
    }


def _noted(notes: Sequence[str]) -> dict[str, str]:
    return {"notes": "\n".join(notes)} if notes else {}


def name_of_statistics(statistics: BNStatistics) -> dict[str, str]:
    """What they are of."""
    layers, channels = len(statistics.layers), statistics.num_channels
    return {"display_name": f"statistics of {layers} layers, {channels:,} channels"}


def name_of_student(kind: str, student: Student) -> dict[str, str]:
    """What became of it, and how much of the teacher it lacks."""
    gone = f"{100 * student.kept.sparsity:.1f} %"
    how = "sparse" if student.channels is None else "of the weights gone with their channels"
    named = {"display_name": f"{kind} student, {gone} {how}", "kind": kind, "sparsity": gone}
    return {**named, **_noted(student.notes)}


def name_of_evaluation(evaluation: Evaluation, verdict: str) -> dict[str, str]:
    """What it found, and on what beside labelled images."""
    found = {"display_name": "scores of teacher and students", "verdict": verdict}
    return {**found, "held_out_kind": evaluation.held_out_kind}


def name_of_test_set(images: LabelledImages | None) -> dict[str, Any]:
    """What it is called, and how its classes were matched."""
    if images is None:
        return {"display_name": "no labelled test set"}
    return {"display_name": f"{len(images.images):,} labelled images", **_noted(images.notes)}


def name_of_shard(index: int, num_shards: int) -> dict[str, Any]:
    """Which share of the dreams this is."""
    return {"display_name": f"dreams, shard {index + 1} of {num_shards}", "shard": index + 1, "num_shards": num_shards}


def name_of_images(images: DreamSet) -> dict[str, str]:
    """That they are no dreams, and where they are from."""
    named = {"display_name": f"{len(images.images):,} real images, in the place of dreams", "source": images.source}
    return {**named, **_noted(images.notes)}


def of_dreams(dreams: DreamSet) -> dict[str, float]:
    """How many dreams there are, and each loss in the last iteration, averaged over the groups."""
    counts = {"images": dreams.num_training, "held_out_images": dreams.num_held_out}
    return {**counts, **{f"final_{name}": float(curve[-1]) for name, curve in dreams.curves.items()}}


def of_student(student: Student) -> dict[str, float]:
    """What the mask, or the channel plan, leaves of the teacher's weights, and how many layers the mask does not cover:
    excluded ones, those that fit no group, and those that no image reaches.
    """
    mask = student.kept
    return {
        "maskable_weights": mask.num_weights,
        "whole_layers": len(whole_layers(student.network.state_dict(), mask)),
        "kept_weights": mask.num_kept,
        "sparsity_percent": 100 * mask.sparsity,
    }


def of_sensitivity(sensitivity: Sensitivity) -> dict[str, float]:
    """How many layers were pruned how often, and what the most and the least sensitive of them cost."""
    ranking = sensitivity.ranking()
    return {
        "layers": len(sensitivity.layers),
        "sparsities": len(sensitivity.sparsities),
        "most_lost_percent": 100 * ranking[0][1],
        "least_lost_percent": 100 * ranking[-1][1],
    }


def name_of_sensitivity(sensitivity: Sensitivity) -> dict[str, str]:
    """What it is of, and which layer can spare least."""
    return {
        "display_name": f"sensitivity of {len(sensitivity.layers)} layers",
        "most_sensitive": sensitivity.ranking()[0][0],
    }


def of_curves(curves: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Curves as JSON."""
    return {name: [float(value) for value in curve] for name, curve in curves.items()}


def of_choice(choice: SparsityChoice | None) -> dict[str, Any]:
    """Why a student is as sparse as it is, as JSON; nothing where the recipe said how sparse."""
    return {} if choice is None else {"sparsity_choice": asdict(choice)}


def of_evaluation(evaluation: Evaluation) -> dict[str, float]:
    """Each network's scores and sparsity in percent, its multiply-accumulates, sizes in MiB, and the latency ratio."""
    found: dict[str, float] = {
        "num_test_images": evaluation.num_test_images,
        "num_held_out_dreams": evaluation.num_held_out_dreams,
    }
    for score in evaluation.scores:
        shares = {"top1": score.top1, "agreement": score.agreement}
        found |= {f"{score.name}_{what}_percent": 100 * share for what, share in shares.items() if share is not None}
    for name, cost in evaluation.costs.items():
        found[f"{name}_sparsity_percent"] = 100 * cost.sparsity
        found[f"{name}_effective_mega_macs"] = cost.effective_macs / 1e6
    for name, size in evaluation.sizes.items():
        found[f"{name}_size_mib"] = size.size_bytes / 2**20
        found[f"{name}_compressed_size_mib"] = size.compressed_size_bytes / 2**20
    if evaluation.latency is not None:
        found["recovered_latency_ratio"] = evaluation.latency.ratio
    return found


def confusion_of(evaluation: Evaluation) -> tuple[list[str], list[list[int]]] | None:
    """Class names and the recovered network's confusion matrix; None without one, or too large to look at."""
    confusion = evaluation.score("recovered").confusion
    names = list(evaluation.class_names)
    if confusion is None or len(names) > MOST_CLASSES_TO_LOOK_AT:
        return None
    return names, as_matrix(confusion, len(names)).tolist()


def markdown_of(evaluation: Evaluation) -> str:
    """The verdict and the table."""
    rows = [
        f"| {row.label} | {percent(row.top1) or '-'} | {percent(row.agreement) or '-'} |"
        for row in summary_rows(evaluation)
    ]
    head = [f"| | top-1 | agrees with the teacher on held-out {evaluation.held_out_kind} |", "|---|---|---|"]
    return "\n".join([f"**{verdict(evaluation)}**", "", *head, *rows, ""])
