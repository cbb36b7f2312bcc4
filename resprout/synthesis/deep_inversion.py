"""DeepInversion (arXiv 1912.08795) with balanced classes, normalised BatchNorm matching and few iterations.

Images are optimised from mid-grey, in quarters of the way from black to white, and reach the network normalised: what
a step, a start and a weight mean is the same for every teacher, whether it takes pixels in 0..1, in 0..255 or
standardised ones. A quarter is about what photographs' pixels vary by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from resprout.batchnorm import Moments, capture_moments
from resprout.recipe import DeepInversionSection
from resprout.synthesis import losses, pyramid
from resprout.synthesis.engine import Descent, Objective, Watch, descend
from resprout.synthesis.groups import Group, GroupResult
from resprout.types import BNStatistics, InputSpec

MID_GREY, QUARTER = 0.5, 0.25
BLACK_OR_WHITE = MID_GREY / QUARTER


def synthesize_group(
    network: nn.Module,
    statistics: BNStatistics,
    space: InputSpec,
    num_classes: int,
    section: DeepInversionSection,
    group: Group,
    *,
    seed: int,
    watch: Watch,
) -> GroupResult:
    """One group of dreams.

    Args:
        network: the teacher as `precision.frozen_copy` made it, on the device to work on.
        statistics: on the same device.
        space: what normalises them.

    Returns:
        Among others, the images in normalised space.
    """
    device = statistics.layers[0].mean.device
    generator = group.generator(seed)
    targets = group.targets(num_classes, generator)
    start = [level.to(device) for level in _start(group.size, space.shape, section, generator)]
    normalised = _normaliser(space, device)
    descent = Descent(section.iterations, section.learning_rate, jitter=section.jitter, flip=section.flip)
    with capture_moments(network) as moments:
        objective = _objective(network, moments, statistics, targets.to(device), section, normalised)
        images, curves = descend(start, objective, descent, bound=BLACK_OR_WHITE, generator=generator, watch=watch)
    return GroupResult(normalised(images).cpu(), targets, curves)


def curves(section: DeepInversionSection) -> tuple[str, ...]:
    """The names of the losses that a section asks for."""
    weighted = {"tv": section.total_variation_weight, "l2": section.l2_weight}
    return (
        "bn",
        "ce" if section.target_loss == "cross_entropy" else "entropy",
        *(name for name, weight in weighted.items() if weight),
    )


def _normaliser(space: InputSpec, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What brings images to normalised space, in one kernel."""
    pixels = torch.ones(1, space.shape[0], 1, 1, device=device)
    grey = space.normalise(MID_GREY * pixels)
    quarter = space.normalise((MID_GREY + QUARTER) * pixels) - grey
    return lambda images: torch.addcmul(grey, images, quarter)


def _start(
    batch: int, shape: tuple[int, int, int], section: DeepInversionSection, generator: torch.Generator
) -> list[Tensor]:
    if not section.pyramid:
        return [torch.randn(batch, *shape, generator=generator)]
    return pyramid.noise(batch, shape, section.coarsest, generator)


def _objective(
    network: nn.Module,
    moments: Mapping[str, Sequence[Moments]],
    statistics: BNStatistics,
    targets: Tensor,
    section: DeepInversionSection,
    normalised: Callable[[Tensor], Tensor],
) -> Objective:
    dtype = next(network.parameters()).dtype

    def terms(images: Tensor) -> dict[str, Tensor]:
        logits = network(normalised(images).to(dtype)).float()
        weighted = {
            "bn": section.batch_norm_weight * _distance(*losses.matched(moments, statistics), section),
            **_target_term(logits, targets, section),
        }
        if section.total_variation_weight:
            weighted["tv"] = section.total_variation_weight * losses.total_variation(images).mean()
        if section.l2_weight:
            weighted["l2"] = section.l2_weight * images.square().mean()
        return weighted

    return terms


def _target_term(logits: Tensor, targets: Tensor, section: DeepInversionSection) -> dict[str, Tensor]:
    if section.target_loss == "entropy":
        return {"entropy": section.target_weight * losses.entropy(logits)}
    return {"ce": section.target_weight * functional.cross_entropy(logits, targets)}


def _distance(batch: list[Moments], statistics: BNStatistics, section: DeepInversionSection) -> Tensor:
    if section.batch_norm_distance == "absolute":
        return losses.batch_norm_distance(batch, statistics)
    return losses.normalised_batch_norm_distance(batch, statistics, section.first_layer_multiplier)
