"""Teachers and students as artifacts: how to build the network, its weights, and a student's mask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from resprout import models
from resprout.artifacts.folder import (
    Manifest,
    load_artifact,
    pack_bits,
    read_manifest,
    save_artifact,
    unpack_bits,
)
from resprout.errors import ArtifactError
from resprout.types import InputSpec, ModelInfo, PruningMask, Student, Teacher

STUDENT_KINDS = ("student", "repaired", "recovered", "model")

Section = Mapping[str, Any] | BaseModel | None
Inputs = Mapping[str, str | Path] | Sequence[Mapping[str, Any]] | None


def save_teacher(teacher: Teacher, directory: str | Path, *, section: Section = None) -> str:
    """Write a teacher; returns the artifact's digest.

    The section's `source` is replaced by the teacher's own, which holds no secret and no path.
    """
    fields = plain_section(section)
    if "source" in fields:
        fields["source"] = teacher.source
    return save_artifact(
        directory,
        kind="teacher",
        tensors={"weights": teacher.network.state_dict()},
        about={"model": _info_to_json(teacher.info), "source": teacher.source, "digest": teacher.digest},
        section=fields,
    )


def load_teacher(directory: str | Path, *, allow_custom_code: bool = False) -> Teacher:
    """Read a teacher: in evaluation mode, its weights frozen.

    Raises:
        ArtifactError: it is damaged, of another kind, or its weights do not fit its architecture.
        UnsupportedModelError: its architecture is custom code, which was not allowed.
    """
    tensors, manifest = load_artifact(directory, "teacher")
    info = _info_from_json(manifest, directory)
    network = _network(info, tensors, directory, allow_custom_code)
    return Teacher(info, network, str(manifest.about.get("source", "")), str(manifest.about.get("digest", "")))


def save_student(
    student: Student,
    directory: str | Path,
    *,
    kind: str = "student",
    section: Section = None,
    seed: int | None = None,
    inputs: Inputs = None,
    about: Mapping[str, Any] | None = None,
) -> str:
    """Write a student: its weights, its mask at one bit a weight, and `density.json`; returns the artifact's digest.

    Args:
        student: its network holds exact zeros wherever its mask says so.
        directory: where to.
        kind: one of STUDENT_KINDS.
        section: the recipe section that made it.
        seed: the run's seed, where randomness was involved.
        inputs: name -> folder of each artifact that it was made from.
        about: further JSON facts (recovery's metrics, for example).

    Raises:
        ArtifactError: a weight that the mask removes is not zero.
        ValueError: the kind is unknown.
    """
    if kind not in STUDENT_KINDS:
        raise ValueError(f"kind '{kind}' is none of {', '.join(STUDENT_KINDS)}")
    _check_mask(student.network, student.mask, directory)
    return save_artifact(
        directory,
        kind=kind,
        tensors={
            "weights": student.network.state_dict(),
            "mask": {name: pack_bits(keep.cpu()) for name, keep in student.mask.keep.items()},
        },
        about={
            **(about or {}),
            "model": _info_to_json(student.info),
            "mask_shapes": {name: list(keep.shape) for name, keep in student.mask.keep.items()},
            "sparsity": student.mask.sparsity,
        },
        section=plain_section(section),
        seed=seed,
        inputs=inputs,
        extras=lambda folder: _write_density(student.mask, folder / "density.json"),
    )


def load_student(directory: str | Path, *, allow_custom_code: bool = False) -> Student:
    """Read a student of any of STUDENT_KINDS: in evaluation mode, its weights frozen, its mask checked against them.

    Raises:
        ArtifactError: it is damaged, of another kind, or its weights or mask do not fit its architecture.
        UnsupportedModelError: its architecture is custom code, which was not allowed.
    """
    kind = read_manifest(directory).kind
    tensors, manifest = load_artifact(directory, kind if kind in STUDENT_KINDS else "student")
    info = _info_from_json(manifest, directory)
    network = _network(info, tensors, directory, allow_custom_code)
    shapes, packed = manifest.about.get("mask_shapes"), tensors.get("mask")
    if packed is None or not isinstance(shapes, Mapping) or set(shapes) != set(packed):
        raise ArtifactError(f"{directory} lacks its mask, or holds one that its manifest does not describe")
    mask = PruningMask({name: unpack_bits(packed[name], shape) for name, shape in shapes.items()})
    _check_mask(network, mask, directory)
    return Student(info, network, mask)


def plain_section(section: Section) -> dict[str, Any]:
    """A recipe section as JSON values."""
    if isinstance(section, BaseModel):
        return section.model_dump(mode="json")
    return dict(section or {})


def _info_to_json(info: ModelInfo) -> dict[str, Any]:
    return {**asdict(info), "arguments": dict(info.arguments)}


def _info_from_json(manifest: Manifest, directory: str | Path) -> ModelInfo:
    try:
        fields = dict(manifest.about["model"])
        spec = {name: tuple(value) for name, value in fields.pop("input").items()}
        return ModelInfo(**{**fields, "class_names": tuple(fields["class_names"])}, input=InputSpec(**spec))
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"the manifest of {directory} does not describe its network: {error}",
            now="make it again, or fetch it again",
        ) from None


def _network(
    info: ModelInfo, tensors: Mapping[str, Mapping[str, Tensor]], directory: str | Path, allow_custom_code: bool
) -> nn.Module:
    if info.custom_code and not allow_custom_code:
        raise models.custom_code_is_refused(info.architecture)
    network = models.build(
        info.architecture,
        num_classes=info.num_classes,
        arguments=info.arguments,
        input_shape=info.input.shape,
        allow_custom_code=allow_custom_code,
    )
    try:
        network.load_state_dict(tensors.get("weights", {}))
    except RuntimeError as error:
        raise ArtifactError(
            f"the weights in {directory} do not fit {info.architecture}: {error}",
            why="the architecture changed, or the folder was put together by hand",
        ) from None
    return network.eval().requires_grad_(False)


def _check_mask(network: nn.Module, mask: PruningMask, directory: str | Path) -> None:
    weights = dict(network.named_parameters())
    for name, keep in mask.keep.items():
        if name not in weights or weights[name].shape != keep.shape:
            raise ArtifactError(f"the mask of {directory} does not fit its network: {name} {list(keep.shape)}")
        revived = torch.count_nonzero(weights[name].detach()[~keep.to(weights[name].device)])
        if revived:
            raise ArtifactError(
                f"{int(revived)} weights of {name} are not zero although the mask of {directory} removes them",
                why="the network would not be as sparse as it says",
            )


def _write_density(mask: PruningMask, path: Path) -> None:
    layers = {
        name: {"weights": keep.numel(), "kept": int(keep.sum()), "density": float(keep.float().mean())}
        for name, keep in mask.keep.items()
    }
    totals = {"weights": mask.num_weights, "kept": mask.num_kept, "sparsity": mask.sparsity}
    path.write_text(json.dumps({"total": totals, "layers": layers}, indent=2) + "\n")
