"""How near a student's answers are to its teacher's, by which recovery chooses what to hand on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from resprout import precision
from resprout.heldout import with_blends
from resprout.types import DreamSet, Student, Teacher


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) at a temperature, times its square, so that gradients keep their scale.

    Hinton et al., arXiv 1503.02531. Logits of shape (batch, classes); returns the mean over the batch, in nats.
    """
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    student = functional.log_softmax(student_logits / temperature, dim=1)
    return functional.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


@torch.no_grad()
def answers(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits in float32, shape (n, classes), of a network in evaluation mode that computes in `dtype`."""
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        return torch.cat([network(batch).float() for batch in images.split(128)])


def compared(logits: Tensor, teacher_logits: Tensor) -> dict[str, float]:
    """The KL of a student's answers from the teacher's, in nats, and the share on which both name the same class."""
    same = (logits.argmax(1) == teacher_logits.argmax(1)).float().mean()
    return {"held_out_kl": float(kl_divergence(logits, teacher_logits, 1.0)), "agreement": float(same)}


def is_finite(network: nn.Module) -> bool:
    """Whether all its weights and statistics are numbers."""
    return bool(torch.stack([part.isfinite().all() for part in network.state_dict().values()]).all())


def nearest(teacher: Teacher, candidates: Mapping[str, Student], dreams: DreamSet, device: torch.device) -> str:
    """The candidate with the lowest KL on held-out dreams and their blends, in float32.

    The first of equals; the first of all where nothing is held out, so that nothing can be judged.
    """
    held_out = with_blends(dreams.held_out[0]).to(device)
    if not len(held_out):
        return next(iter(candidates))
    teacher_logits = answers(precision.frozen_copy(teacher.network, torch.float32, device), held_out, torch.float32)

    def distance(name: str) -> float:
        network = precision.frozen_copy(candidates[name].network, torch.float32, device)
        kl = compared(answers(network, held_out, torch.float32), teacher_logits)["held_out_kl"]
        return kl if math.isfinite(kl) else math.inf

    with precision.repeatable(allow_tf32=False):
        return min(candidates, key=distance)
