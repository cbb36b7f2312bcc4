"""The weights that carry least synaptic flow go: SynFlow (Tanaka et al., arXiv 2006.05467). No image is looked at."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from resprout.batchnorm import BatchNorm
from resprout.errors import UnsupportedModelError
from resprout.progress import Progress
from resprout.pruning.subject import Subject
from resprout.pruning.threshold import keep_best
from resprout.recipe import SynflowSection


def synflow(subject: Subject, due: int, least: Mapping[str, int], section: SynflowSection) -> dict[str, Tensor]:
    """Remove the weights with the smallest synaptic flow, a share of those left in each round, then score anew.

    Args:
        due: how many of the maskable weights are to be gone.
        least: how many stay of each layer in any case.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays.

    Raises:
        UnsupportedModelError: nothing flows through the network, or more than float64 holds.
    """
    network, keep = linearised(subject.network), dict(subject.alive)
    gone = subject.num_weights - sum(int(left.sum()) for left in keep.values())
    while gone < due:
        scores = synaptic_flow(network, keep, tuple(subject.teacher.info.input.shape))
        gone = min(due, gone + max(1, round((subject.num_weights - gone) * section.share_per_round)))
        keep = keep_best(scores, gone, keep, least)
        with torch.no_grad():
            for name, stays in keep.items():
                network.get_parameter(name).mul_(stays.to(subject.device))
        subject.report(Progress("pruning", gone, due, "weights"))
    return keep


@torch.no_grad()
def linearised(network: nn.Module) -> nn.Module:
    """A copy in float64 that sums over paths: weights by magnitude, no biases, BatchNorm only its running scale.

    What goes in positive stays positive, so that a ReLU lets all of it pass.
    """
    duplicate = copy.deepcopy(network).double().eval().requires_grad_(False)
    for module in duplicate.modules():
        if isinstance(module, BatchNorm) and module.running_mean is not None:
            module.running_mean.zero_()
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                parameter.zero_()
            else:
                parameter.abs_()
    return duplicate


def synaptic_flow(network: nn.Module, names: Iterable[str], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """What share of the flow through the network passes each weight.

    Eq. 2, arXiv 2006.05467: R = the sum of the logits of an image of ones under weights by magnitude, that is, the sum
    over all paths of the product of their weights; a weight's score is w * dR/dw, what of R passes through it.

    Args:
        network: linearised.
        names: of parameters.
        shape: of an image: channels, height, width.

    Returns:
        Parameter name -> float64, not negative, in units of R: a layer that all paths cross sums to 1.
    """
    parameters = {name: network.get_parameter(name).requires_grad_(True) for name in names}
    device = next(network.parameters()).device
    try:
        flow = network(torch.ones(1, *shape, dtype=torch.float64, device=device)).sum()
        found = torch.autograd.grad(flow, list(parameters.values()), materialize_grads=True)
    finally:
        network.requires_grad_(False)
    total = float(flow.detach())
    if not 0 < total < math.inf:
        raise UnsupportedModelError(
            f"the synaptic flow through the network is {total:g}",
            why="a sum of products over all layers must be above 0 and fit float64 to say what a weight carries",
            now="set pruning.method to lamp",
        )
    return {
        name: parameter.detach() * gradient / total
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }
