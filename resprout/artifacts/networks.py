"""Teachers and students as artifacts: how to build the network, its weights, a student's mask and channel plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from resprout import models
from resprout.artifacts.described import About, described
from resprout.artifacts.folder import load_artifact, pack_bits, save_artifact, unpack_bits
from resprout.artifacts.plans import pack_plan, unpack_plan
from resprout.channels import shrink, whole_mask
from resprout.errors import ArtifactError, DivergedError
from resprout.manifest import read_manifest
from resprout.models.bounds import no_larger_than
from resprout.types import ChannelPlan, ModelInfo, PruningMask, Student, Teacher
from resprout.wording import listed

STUDENT_KINDS = ("student", "repaired", "recovered", "model")

Section = Mapping[str, Any] | BaseModel | None
Inputs = Sequence[Mapping[str, Any]]


class AboutTeacher(About):
    """What loading a teacher needs to know."""

    model: ModelInfo
    source: str = ""
    digest: str = ""
    notes: tuple[str, ...] = ()


class AboutStudent(About):
    """What loading a student needs to know."""

    model: ModelInfo
    sparsity: float
    mask_shapes: dict[str, tuple[PositiveInt, ...]]
    channels: dict[str, int] | None = None
    notes: tuple[str, ...] = ()


def save_teacher(teacher: Teacher, directory: str | Path, *, section: Section = None) -> str:
    """Write a teacher; returns the artifact's digest.

    The section's `source` is replaced by the teacher's own, which holds no secret and no path.

    Raises:
        DivergedError: a weight or a statistic is NaN or infinite.
    """
    _check_finite(teacher.network, "teacher")
    fields = plain_section(section)
    if "source" in fields:
        fields["source"] = teacher.source
    return save_artifact(
        directory,
        kind="teacher",
        tensors={"weights": teacher.network.state_dict()},
        about={
            "model": _info_to_json(teacher.info),
            "source": teacher.source,
            "digest": teacher.digest,
            **({"notes": list(teacher.notes)} if teacher.notes else {}),
        },
        section=fields,
    )


def teacher_info(directory: str | Path, *, sha256: str | None = None) -> ModelInfo:
    """How to feed a teacher, from its manifest: nothing is built, no code of an artifact runs.

    Raises:
        ArtifactError: it is of another kind, has another digest than `sha256`, or its manifest does not say.
    """
    return described(AboutTeacher, read_manifest(directory, "teacher", sha256=sha256), directory).model


def load_teacher(directory: str | Path, *, sha256: str | None = None, allow_custom_code: bool = False) -> Teacher:
    """Read a teacher: in evaluation mode, its weights frozen.

    Raises:
        ArtifactError: it is damaged, of another kind, has another digest than `sha256`, or its weights do not fit its
            architecture.
        UnsupportedModelError: its architecture is custom code, which was not allowed.
    """
    tensors, manifest = load_artifact(directory, "teacher", sha256=sha256)
    about = described(AboutTeacher, manifest, directory)
    with no_larger_than(tensors.get("weights", {}).values()):
        network = _network(about.model, tensors, directory, allow_custom_code, None)
    return Teacher(about.model, network, about.source, about.digest, about.notes)


def save_student(
    student: Student,
    directory: str | Path,
    *,
    kind: str = "student",
    section: Section = None,
    seed: int | None = None,
    inputs: Inputs = (),
    computed_on: str = "",
    resumed: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> str:
    """Write a student: its weights, its mask at one bit a weight, and `density.json`; returns the artifact's digest.

    Where whole channels are gone, their plan is written too, at one bit a channel, and of the mask what it removes.

    Args:
        student: its network holds exact zeros wherever its mask says so.
        directory: where to.
        kind: one of STUDENT_KINDS.
        section: the recipe section that made it.
        seed: the run's seed, where randomness was involved.
        inputs: the records of the artifacts that it was made from, taken when these were loaded.
        computed_on: the kind of device, as `devices.computed_on` says it.
        resumed: the sha256 of each checkpoint whose state went into it.
        about: further JSON facts (recovery's metrics, for example).

    Raises:
        ArtifactError: a weight that the mask removes is not zero.
        DivergedError: a weight or a statistic is NaN or infinite.
        ValueError: the kind is unknown.
    """
    if kind not in STUDENT_KINDS:
        raise ValueError(f"kind '{kind}' is none of {', '.join(STUDENT_KINDS)}")
    _check_finite(student.network, kind)
    _check_mask(student.network, student.mask, directory)
    mask, kept = _stored_mask(student), student.kept
    plan, plan_sizes = pack_plan(student.channels)
    return save_artifact(
        directory,
        kind=kind,
        tensors={
            "weights": student.network.state_dict(),
            "mask": {name: pack_bits(keep.cpu()) for name, keep in mask.items()},
            **plan,
        },
        about={
            **(about or {}),
            "model": _info_to_json(student.info),
            "mask_shapes": {name: list(keep.shape) for name, keep in mask.items()},
            "sparsity": kept.sparsity,
            **plan_sizes,
            **({"notes": list(student.notes)} if student.notes else {}),
        },
        section=plain_section(section),
        seed=seed,
        inputs=inputs,
        computed_on=computed_on,
        resumed=resumed,
        extras=lambda folder: _write_density(kept, folder / "density.json"),
    )


def load_student(directory: str | Path, *, sha256: str | None = None, allow_custom_code: bool = False) -> Student:
    """Read a student of any of STUDENT_KINDS: in evaluation mode, its weights frozen, its mask checked against them.

    Raises:
        ArtifactError: it is damaged, of another kind, has another digest than `sha256`, or its weights, mask or channel
            plan do not fit its architecture.
        UnsupportedModelError: its architecture is custom code, which was not allowed.
    """
    tensors, manifest = load_artifact(directory, *STUDENT_KINDS, sha256=sha256)
    about = described(AboutStudent, manifest, directory)
    channels = unpack_plan(tensors, about.channels, directory)
    network = _network(about.model, tensors, directory, allow_custom_code, channels)
    keep = unpack_mask(tensors, about, directory)
    mask = PruningMask(keep if channels is None else {**whole_mask(network).keep, **keep})
    _check_mask(network, mask, directory)
    return Student(about.model, network, mask, channels, about.notes)


def unpack_mask(
    tensors: Mapping[str, Mapping[str, Tensor]], about: AboutStudent, directory: str | Path
) -> dict[str, Tensor]:
    """The mask of a student's artifact: parameter name -> bool.

    Raises:
        ArtifactError: the tensors and the manifest do not agree.
    """
    packed = tensors.get("mask")
    whole = about.channels is not None  # of what was cut, a mask that removes nothing is not kept
    if packed is None or set(about.mask_shapes) != set(packed) or not (packed or whole):
        raise ArtifactError(f"{directory} lacks its mask, or holds one that its manifest does not describe")
    return {name: unpack_bits(packed[name], shape) for name, shape in about.mask_shapes.items()}


def plain_section(section: Section) -> dict[str, Any]:
    """A recipe section as JSON values."""
    if isinstance(section, BaseModel):
        return section.model_dump(mode="json")
    return dict(section or {})


def _info_to_json(info: ModelInfo) -> dict[str, Any]:
    return {**asdict(info), "arguments": dict(info.arguments)}


def _network(
    info: ModelInfo,
    tensors: Mapping[str, Mapping[str, Tensor]],
    directory: str | Path,
    allow_custom_code: bool,
    channels: ChannelPlan | None,
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
    if channels is not None:
        network = shrink(network, channels)
    try:
        network.load_state_dict(tensors.get("weights", {}))
    except RuntimeError as error:
        raise ArtifactError(
            f"the weights in {directory} do not fit {info.architecture}: {error}",
            why="the architecture changed, or the folder was put together by hand",
        ) from None
    return network.eval().requires_grad_(False)


def _check_finite(network: nn.Module, kind: str) -> None:
    state = network.state_dict()
    if broken := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise DivergedError(
            f"the {kind} holds NaN or infinity in {len(broken)} of {len(state)} tensors ({listed(broken)})",
            why="whatever it computes is no number",
            now="lower the learning rate of the stage that made it",
        )


def _stored_mask(student: Student) -> dict[str, Tensor]:
    """The mask, less what it keeps whole in a network that was cut: that is all of it as a rule."""
    keep = student.mask.keep
    return {name: kept for name, kept in keep.items() if student.channels is None or not kept.all()}


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
