"""Of every few weights that follow each other in a product, only some stay: what sparse tensor cores can skip.

NVIDIA's, from Ampere on, take 2 of every 4 (Mishra et al., arXiv 2104.08378). They multiply a matrix whose rows are
output channels; groups lie along its columns, the products' reduction. A linear layer's weight is that matrix. A
convolution in channels_last is one too, (out, height * width * in): there, neighbours are the input channels of one
kernel position. A group therefore never crosses a kernel position, and in both kinds of layers it lies along the
weight's second dimension.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from resprout.errors import RecipeError


def semi_structured(weights: Mapping[str, Tensor], *, kept: int, group: int) -> dict[str, Tensor]:
    """Keep the `kept` largest of every `group` weights in magnitude; among equal ones, those that come last.

    Args:
        weights: parameter name -> float32 tensor on the CPU, shape (out, in, ...), in a multiple of `group`
            (see `in_groups`).
        kept: in [1, group).
        group: neighbours along the second dimension that are judged together.

    Returns:
        Parameter name -> bool tensor of the weight's shape, True where it stays: exactly `kept` in every group.
    """
    return {name: _largest_of_each_group(weight, kept, group) for name, weight in weights.items()}


def _largest_of_each_group(weight: Tensor, kept: int, group: int) -> Tensor:
    groups = weight.abs().movedim(1, -1).unflatten(-1, (-1, group))
    largest = groups.argsort(dim=-1, stable=True)[..., group - kept :]
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, largest, True)
    return keep.flatten(-2).movedim(-1, 1).contiguous()


def in_groups(network: nn.Module, weights: Mapping[str, Tensor], group: int) -> dict[str, Tensor]:
    """Those of `weights` that split into groups; the other layers stay whole.

    A layer stays whole where its input channels (of one convolution group: a depthwise convolution has one) are no
    multiple of `group`, as a first convolution's 3 colours are not; and where it is a transposed convolution, which no
    sparse kernel computes.

    Args:
        network: that the weights are of.
        weights: parameter name -> tensor.

    Raises:
        RecipeError: no layer splits.
    """
    transposed = {id(module.weight) for module in network.modules() if isinstance(module, _ConvTransposeNd)}
    whole = {name for name, parameter in network.named_parameters() if id(parameter) in transposed}
    whole |= {name for name, weight in weights.items() if weight.shape[1] % group}
    fitting = {name: weight for name, weight in weights.items() if name not in whole}
    if not fitting:
        raise RecipeError(
            f"semi_structured: no layer's input channels are a multiple of pruning.group = {group}",
            why="each group lies within the input channels of one output, and a layer that does not split stays whole",
            now="choose a smaller pruning.group, or another method",
        )
    return fitting
