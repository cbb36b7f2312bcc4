"""The layers that read the image: their weights are as small as its numbers are large.

An optimiser's step size suits weights that see inputs of about 1. A network that takes pixels in 0..255, and does not
scale them itself, has first weights a hundred times smaller than others: one usual step would make noise of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

USUAL = (0.1, 10.0)
"""What images deviate by where nothing needs to be done: any network for 0..1, -1..1 or standardised pixels."""
ENOUGH_IMAGES = 64


def step_groups(
    network: nn.Module, images: Tensor, *, peak: float, weight_decay: float = 0.0, adaptive: bool
) -> list[dict[str, Any]]:
    """All parameters as an optimiser's groups, so that each steps as in a network for standardised images.

    Args:
        network: on any device; is not changed.
        images: shape (n, channels, height, width), normalised space; some are enough.
        peak: the step size of weights that see usual inputs.
        weight_decay: theirs.
        adaptive: steps are of a size whatever the gradient's, as Adam's are; else in proportion to it, as SGD's.

    Returns:
        One group, and one more for each weight that reads images in another range. `initial_lr` is a group's peak, as
        torch's own schedulers have it.
    """
    few = images[:ENOUGH_IMAGES].to(device=next(network.parameters()).device, dtype=torch.float32)
    readers = list(_readers(network, few)) if _is_unusual(few) else []
    apart = {id(weight) for weight, _ in readers}
    groups = [_group([each for each in network.parameters() if id(each) not in apart], peak, weight_decay)]
    for weight, deviation in readers:
        share = deviation**-1 if adaptive else deviation**-2
        groups.append(_group([weight], peak * share, weight_decay / share))
    return groups


def _group(parameters: list[nn.Parameter], peak: float, weight_decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": peak, "initial_lr": peak, "weight_decay": weight_decay}


def _is_unusual(images: Tensor) -> bool:
    return bool(len(images)) and not USUAL[0] < float(images.std()) < USUAL[1]


@torch.no_grad()
def _readers(network: nn.Module, images: Tensor) -> Iterator[tuple[nn.Parameter, float]]:
    """The weights that see the images first, and what these deviate by there, where that is unusual still."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and (not seen or inputs[0] is seen[0][1]):
            seen.append((layer, inputs[0]))

    with ExitStack() as hooks:
        for layer in network.modules():
            if not any(layer.children()) and any(True for _ in layer.parameters()):
                hooks.callback(layer.register_forward_pre_hook(note).remove)
        network(images)
    for layer, inputs in seen:
        weight = getattr(layer, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim > 1 and _is_unusual(inputs):
            yield weight, float(inputs.std())
