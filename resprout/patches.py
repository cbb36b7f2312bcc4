"""Convolutions and linear layers as matrix products, which is what least squares needs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

Layer = nn.Conv2d | nn.Linear
PATCH_ELEMENTS = 2**26
"""How many numbers a layer's unfolded inputs may take at a time: 256 MiB."""


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer's outputs are known to be linear in its weights; a subclass may compute something else."""
    return type(layer) in (nn.Conv2d, nn.Linear)


def batch_size_for(elements: int) -> int:
    """How many images to look at together where each takes so many numbers when it is unfolded."""
    return max(1, min(128, PATCH_ELEMENTS // elements))


def channel_axis(layer: nn.Module) -> int:
    """Along which axis of what a layer takes and gives its channels lie."""
    return -1 if isinstance(layer, nn.Linear) else 1


def groups_of(layer: Layer) -> int:
    """In how many groups of channels a layer works, each with inputs of its own."""
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def in_batch(layer: nn.Module, values: Tensor) -> Tensor:
    """What a layer takes or gives, also where it was run on one image's without a batch."""
    return values[None] if values.ndim == (1 if isinstance(layer, nn.Linear) else 3) else values


def as_matrices(layer: Layer, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's inputs and outputs, without the bias, as the two sides of a matrix product.

    Returns:
        Shapes (groups, fan_in, positions) and (groups, out_channels / groups, positions).
    """
    inputs, outputs = in_batch(layer, inputs), in_batch(layer, outputs)
    if isinstance(layer, nn.Conv2d):
        if layer.bias is not None:
            outputs = outputs - layer.bias.view(1, -1, 1, 1)
        padding = layer.padding
        if isinstance(padding, str) or layer.padding_mode != "zeros":
            # what forward() itself pads with, so that unfold need not
            inputs = functional.pad(
                inputs,
                layer._reversed_padding_repeated_twice,
                mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode,
            )
            padding = (0, 0)
        x = functional.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)
        y = outputs.flatten(2)
        groups = layer.groups
    else:
        if layer.bias is not None:
            outputs = outputs - layer.bias
        x, y, groups = inputs.flatten(0, -2)[..., None], outputs.flatten(0, -2)[..., None], 1
    return _by_group(x, groups), _by_group(y, groups)


def _by_group(values: Tensor, groups: int) -> Tensor:
    """(batch, channels, positions) to (groups, channels / groups, batch x positions)."""
    grouped: Tensor = values.unflatten(1, (groups, -1))
    return grouped.permute(1, 2, 0, 3).flatten(2)
