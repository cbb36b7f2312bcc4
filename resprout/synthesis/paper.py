"""The released recipe of arXiv 2511.20702, to the letter: the baseline that our own method is measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from resprout.batchnorm import Moments, capture_moments
from resprout.synthesis import losses
from resprout.synthesis.engine import Descent, Watch, descend
from resprout.synthesis.groups import Group, GroupResult
from resprout.types import BNStatistics, InputSpec

ITERATIONS = 200
LEARNING_RATE = 0.05
BATCH_NORM_WEIGHT = 10.0
TOTAL_VARIATION_WEIGHT = 1e-5
BOUND = 3.0
CURVES: tuple[str, ...] = ("bn", "entropy", "tv")


def synthesize_group(
    network: nn.Module, statistics: BNStatistics, space: InputSpec, group: Group, *, seed: int, watch: Watch
) -> GroupResult:
    """One batch of dreams: entropy + 10 · BN distance (Eq. 4) + 1e-5 · summed TV, Adam 0.05, images within ±3.

    No class is asked for; a dream's class is the one that the teacher ends up seeing in it.
    """
    device = statistics.layers[0].mean.device
    generator = group.generator(seed)
    noise = torch.randn(group.size, *space.shape, generator=generator).to(device)
    descent = Descent(ITERATIONS, LEARNING_RATE, betas=(0.9, 0.999), cosine=False)
    with capture_moments(network) as moments:
        images, curves = descend(
            [noise],
            lambda images: _terms(network, moments, statistics, images),
            descent,
            bound=BOUND,
            generator=generator,
            watch=watch,
        )
    with torch.inference_mode():
        targets = network(images).argmax(1)
    return GroupResult(images.cpu(), targets.cpu().clone(), curves)


def _terms(
    network: nn.Module, moments: Mapping[str, Sequence[Moments]], statistics: BNStatistics, images: Tensor
) -> dict[str, Tensor]:
    logits = network(images)
    return {
        "bn": BATCH_NORM_WEIGHT * losses.batch_norm_distance(*losses.matched(moments, statistics)),
        "entropy": losses.entropy(logits),
        "tv": TOTAL_VARIATION_WEIGHT * losses.total_variation(images).sum(),
    }
