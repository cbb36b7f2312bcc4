"""How much each layer alone can spare: one is pruned, all others stay whole, and the answers are compared.

As in Han et al., arXiv 1506.02626 (Fig. 6), there by accuracy on data, here by agreement with the teacher on dreams.
"""

from __future__ import annotations

import copy
import dataclasses

import torch

from resprout import precision
from resprout.errors import ArtifactError, DatasetError
from resprout.judging import judge_of, top1
from resprout.masking import apply_mask
from resprout.overlap import refuse_overlap
from resprout.progress import Progress, Report, silent
from resprout.pruning.candidates import candidates_of
from resprout.pruning.threshold import keep_largest
from resprout.recipe import SensitivitySection
from resprout.recovery import repair
from resprout.types import DreamSet, LabelledImages, PruningMask, Sensitivity, Student, Teacher


def scan(
    teacher: Teacher,
    dreams: DreamSet,
    section: SensitivitySection,
    *,
    data: LabelledImages | None = None,
    device: torch.device | None = None,
    report: Report = silent,
) -> Sensitivity:
    """What pruning one layer alone costs, for each layer and each sparsity of the section.

    Nothing is drawn: the same inputs give the same figures on one kind of machine.

    Args:
        teacher: is not changed.
        dreams: held-out ones and their blends are asked about; on others, BatchNorm is re-estimated.
        section: which shares of which layers go, by magnitude within the layer.
        data: labelled images, to measure accuracy on too.
        device: default: the first GPU, or the CPU.
        report: is told each layer and sparsity that is done.

    Raises:
        RecipeError: an exclusion matches nothing, or everything.
        UnsupportedModelError: the network has no convolution and no linear layer.
        ArtifactError: no dreams are held out, too few are there to re-estimate BatchNorm on, or they do not fit.
        DatasetError: the labelled images do not fit the teacher, or are among those in the place of dreams.
    """
    weights = candidates_of(teacher.network, teacher.info.input.shape, section.exclude).weights
    _refuse_foreign(data, teacher)
    if data is not None:
        refuse_overlap(data, dreams, teacher.info.input)
    device = device or precision.best_device()
    judge = judge_of(teacher, dreams, device)
    repaired_on = _for_repair(dreams, section.repair_dreams)
    total, done = len(weights) * len(section.sparsities), 0
    agreement, kl_divergence, accuracy = (torch.zeros(total, dtype=torch.float64) for _ in range(3))
    for name in weights:
        for sparsity in section.sparsities:
            student = one_layer_pruned(teacher, name, sparsity)
            network = repair(student, repaired_on, device).network if section.repair_dreams else student.network
            agreement[done], kl_divergence[done] = judge(network)
            if data is not None:
                accuracy[done] = top1(network, data, teacher.info.input, device)
            figures = {"sparsity": sparsity, "agreement": float(agreement[done])}
            done += 1
            report(Progress("sensitivity", done, total, "prunings", figures))
    whole = Student(teacher.info, teacher.network, PruningMask({}))
    shape = (len(weights), len(section.sparsities))
    return Sensitivity(
        layers=tuple(weights),
        num_weights=tuple(weight.numel() for weight in weights.values()),
        sparsities=section.sparsities,
        agreement=agreement.view(shape),
        kl_divergence=kl_divergence.view(shape),
        top1=None if data is None else accuracy.view(shape),
        teacher_top1=None if data is None else top1(teacher.network, data, teacher.info.input, device),
        num_repair_dreams=repaired_on.num_training if section.repair_dreams else 0,
        num_held_out_dreams=dreams.num_held_out,
        images_source=dreams.source,
        whole_agreement=judge(repair(whole, repaired_on, device).network)[0] if section.repair_dreams else 1.0,
    )


def one_layer_pruned(teacher: Teacher, name: str, sparsity: float) -> Student:
    """A copy of the teacher without the smallest weights of one layer; at least one stays.

    Args:
        teacher: is not changed.
        name: of the layer's weight.
        sparsity: the share to remove, in [0, 1).
    """
    network = copy.deepcopy(teacher.network)
    weight = network.get_parameter(name).detach().float().cpu()
    num_removed = min(round(sparsity * weight.numel()), weight.numel() - 1)
    keep = keep_largest(weight.abs().flatten(), num_removed).view(weight.shape)
    student = Student(teacher.info, network, PruningMask({name: keep}))
    apply_mask(network, student.mask)
    return student


def _for_repair(dreams: DreamSet, count: int) -> DreamSet:
    """The first `count` of the training dreams, all of them where there are fewer."""
    images, targets = dreams.training
    if count and len(images) < 2:
        raise ArtifactError(
            f"{len(images)} dreams to re-estimate BatchNorm on",
            now="raise synthesis.num_images, or set repair_dreams to 0",
        )
    return dataclasses.replace(dreams, images=images[:count], targets=targets[:count], num_held_out=0)


def _refuse_foreign(data: LabelledImages | None, teacher: Teacher) -> None:
    if data is None:
        return
    if not len(data.images) or tuple(data.images.shape[1:]) != tuple(teacher.info.input.shape):
        raise DatasetError(
            f"the labelled images are {list(data.images.shape)}, the teacher takes {list(teacher.info.input.shape)}",
            now="read them with resprout.datasets.load_labelled, which brings them to the teacher's input shape",
        )
