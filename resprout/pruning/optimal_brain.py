"""The weights go without which the others can best make up for them (Optimal Brain Compression, arXiv 2208.11580).

There each layer is pruned by what its own outputs lack. So that one threshold serves all layers, that counts here in
two units: by how much the network's answers depend on those outputs (their Fisher information, beside the inputs'
second moments, as in K-FAC, arXiv 1503.05671), and as a share of what the outputs vary. The first alone spares early
layers, the second alone knows nothing of the answers; their geometric mean is better than either. The share is one in
what its channel still has, as with LAMP in what a layer still has (arXiv 2010.07611): weights that matter little one by
one are missed together, and a channel that has lost all of them cannot be trained back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from resprout.patches import Layer, as_matrices, batch_size_for, channel_axis, groups_of, in_batch, is_plain
from resprout.progress import Progress
from resprout.pruning.elimination import removal_errors
from resprout.pruning.gradients import Examples, squared_gradients
from resprout.pruning.guidance import drawn_loss
from resprout.pruning.lamp import shares_left
from resprout.pruning.subject import Subject
from resprout.recipe import OptimalBrainSection
from resprout.seeding import generator

TINY = torch.finfo(torch.float32).tiny
NO_EFFECT = torch.finfo(torch.float64).tiny
"""What counts as the effect of a weight that has none: it goes before all that have one, the least share first."""
_Seen = dict[str, list[tuple[Tensor, Tensor]]]
"""A layer's inputs and outputs, for each of its uses, by the name of its weights."""
BLOCK = 576
"""Of how many neighbouring weights one can make up for another: 64 channels of a 3x3 convolution. Blocks of a row take
time with their number, and with the cube of their size."""


@dataclass
class Moments:
    """What a layer's inputs and outputs say about its weights, in float64.

    Args:
        inputs: E[x xᵀ] over positions and images, of blocks of a group's inputs, shape (groups * blocks, size, size); 0
            where the last block is not full.
        fisher: the squared gradient of the loss by an output, summed over an image's positions, the mean over images,
            shape (out_channels,).
        variance: of an output, the mean over channels, a scalar.
    """

    inputs: Tensor
    fisher: Tensor
    variance: Tensor


def optimal_brain(subject: Subject, section: OptimalBrainSection) -> dict[str, Tensor]:
    """What is lacking without each weight where the layer's others make up for it.

    `effect`^power * `share`^(1 - power), with the effect on the loss to second order, in nats, and the share in what
    its channel still has when this weight goes, times the channel's in the variance of the layer's outputs.

    Of layers that are neither exactly nn.Conv2d nor nn.Linear it is not known what others could make up for. There a
    weight's effect is its Fisher information times its square, and shares are those in squares.

    Returns:
        Parameter name -> float64 tensor of the weight's shape, not negative.

    Raises:
        RecipeError, ArtifactError: there are no images, or they do not fit the teacher.
    """
    images, _ = subject.images(section.num_images)
    layers = {name: subject.network.get_submodule(name.removesuffix(".weight")) for name in subject.alive}
    plain = {name: cast(Layer, layer) for name, layer in layers.items() if is_plain(layer)}
    moments = moments_of(subject, plain, images) if plain else {}
    # a layer whose weight is used without its forward being run shows no inputs
    scores = _alone(subject, [name for name in layers if name not in moments], images, section.gradient_power)
    for done, (name, found) in enumerate(moments.items(), start=1):
        layer, alive = plain[name], subject.alive[name].to(subject.device)
        scores[name] = _scores(layer.weight.detach().double(), alive, groups_of(layer), found, section)
        subject.report(Progress("pruning", done, len(moments), "layers"))
    return scores


def _scores(weight: Tensor, alive: Tensor, groups: int, moments: Moments, section: OptimalBrainSection) -> Tensor:
    size = moments.inputs.diagonal(dim1=1, dim2=2).mean(1).clamp_min(TINY)
    unit = torch.eye(moments.inputs.shape[1], dtype=weight.dtype, device=weight.device)
    grams = moments.inputs + section.ridge * size[:, None, None] * unit
    rows = [_rows_of_blocks(values.flatten(1), groups) for values in (weight, alive)]
    errors = _whole_rows(removal_errors(rows[0], grams, rows[1]), groups, weight.flatten(1).shape)
    effect = errors * moments.fisher[:, None]
    return _weighed(effect, errors, moments.variance, section.gradient_power).reshape(weight.shape)


def _alone(subject: Subject, names: list[str], images: Tensor, power: float) -> dict[str, Tensor]:
    """Scores of layers of another kind."""
    if not names:
        return {}
    draws, nothing = generator(subject.seed, "pruning", "labels"), torch.zeros(len(images), 0, device=subject.device)
    examples = Examples(images.to(device=subject.device, dtype=torch.float32), nothing, nothing)
    fisher = squared_gradients(
        subject.network, names, examples, lambda logits, *_: drawn_loss(logits, draws), batch_size=1
    )
    scores = {}
    for name in names:
        weight = subject.weights()[name]
        squares = weight.square().flatten(1)
        effect = fisher[name].flatten(1) * squares
        scores[name] = _weighed(effect, squares, squares.sum(1).mean(), power).view_as(weight)
    return scores


def _weighed(effect: Tensor, lacking: Tensor, per_channel: Tensor, power: float) -> Tensor:
    """The scores of a layer's weights, shape (out_channels, fan_in).

    Args:
        effect, lacking: on the loss, and in the channel's outputs, without each weight; of that shape.
        per_channel: what a channel has, the mean over channels, in the unit of `lacking`.
    """
    channels = lacking.sum(1, keepdim=True) / per_channel.clamp_min(TINY)
    return effect.clamp_min(NO_EFFECT).pow(power) * (channels * shares_left(lacking)).pow(1 - power)


def moments_of(subject: Subject, layers: Mapping[str, Layer], images: Tensor) -> dict[str, Moments]:
    """Those of all layers at once, over all images; labels are drawn from the network's own answers.

    Args:
        layers: of `subject.network`, by the name of their weights.
        images: shape (n, channels, height, width), normalised space.
    """
    draws, done = generator(subject.seed, "pruning", "labels"), 0
    sums: dict[str, list[Tensor]] = {}
    positions: dict[str, int] = {}
    with _watched(subject.network, layers) as seen:
        size = _batch_size(subject, layers, seen, images)
        for batch in images.split(size) if seen else ():
            loss = drawn_loss(subject.network(batch.to(device=subject.device, dtype=torch.float32)), draws)
            uses = [(name, *use) for name, all_uses in seen.items() for use in all_uses]
            # outputs that the logits do not depend on, as of a hidden state that is returned beside them, have none
            gradients = torch.autograd.grad(loss, [outputs for *_, outputs in uses], materialize_grads=True)
            for (name, inputs, outputs), gradient in zip(uses, gradients, strict=True):
                x, _ = as_matrices(layers[name], inputs, outputs.detach())
                y, slope = (_by_channel(layers[name], values.detach()) for values in (outputs, gradient))
                x = _in_blocks(x)
                found = [(x @ x.mT).double(), y.sum(1), y.square().sum(1), slope.square().sum(1)]
                before = sums.get(name, [torch.zeros_like(part) for part in found])
                sums[name] = [total + part for total, part in zip(before, found, strict=True)]
                positions[name] = positions.get(name, 0) + y.shape[1]
            done += len(batch)
            subject.report(Progress("pruning", done, len(images), "images"))
    return {name: _moments(sums[name], positions[name], len(images)) for name in sums}


def _in_blocks(x: Tensor) -> Tensor:
    """(groups, fan_in, ...) to (groups * blocks, size, ...), filled up with zeros."""
    fan_in = x.shape[1]
    blocks = math.ceil(fan_in / BLOCK)
    size = math.ceil(fan_in / blocks)
    missing = x.new_zeros(len(x), blocks * size - fan_in, *x.shape[2:])
    split: Tensor = torch.cat([x, missing], 1).unflatten(1, (blocks, size))
    return split.flatten(0, 1)


def _rows_of_blocks(rows: Tensor, groups: int) -> Tensor:
    """(groups * rows, fan_in) to (groups * blocks * rows, size): each block's rows together."""
    by_group = rows.unflatten(0, (groups, -1))
    return _in_blocks(by_group.transpose(1, 2)).transpose(1, 2).flatten(0, 1)


def _whole_rows(rows: Tensor, groups: int, shape: torch.Size) -> Tensor:
    """Undo `_rows_of_blocks`; `shape` is (groups * rows, fan_in)."""
    by_block = rows.unflatten(0, (groups, -1, shape[0] // groups))
    whole: Tensor = by_block.transpose(1, 2).flatten(2)[:, :, : shape[1]]
    return whole.reshape(shape)


def _moments(sums: list[Tensor], positions: int, num_images: int) -> Moments:
    inputs, outputs, squares, slopes = sums
    variance = (squares / positions - (outputs / positions).square()).mean()
    return Moments(inputs / positions, slopes / num_images, variance)


def _by_channel(layer: Layer, values: Tensor) -> Tensor:
    """What a layer gives, or gradients by it, in float64, shape (channels, positions)."""
    return in_batch(layer, values).movedim(channel_axis(layer), 0).flatten(1).double()


@contextmanager
def _watched(network: nn.Module, layers: Mapping[str, Layer]) -> Iterator[_Seen]:
    """What each layer took and gave in the last pass, with outputs that gradients can be asked for.

    Yields:
        Filled anew by each pass, in the order in which layers run; the hooks are gone when the block ends.
    """
    seen: _Seen = {}

    def hook_for(name: str) -> Callable[..., Tensor]:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], named: Mapping[str, Tensor], outputs: Tensor) -> Tensor:
            asked = outputs if outputs.requires_grad else outputs.requires_grad_()
            (given,) = inputs or named.values()
            seen.setdefault(name, []).append((given.detach(), asked))
            return asked.clone()  # what follows may work in place

        return hook

    handles = [network.register_forward_pre_hook(lambda *_: seen.clear())]
    handles += [layer.register_forward_hook(hook_for(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _batch_size(subject: Subject, layers: Mapping[str, Layer], seen: _Seen, images: Tensor) -> int:
    subject.network(images[:1].to(device=subject.device, dtype=torch.float32))
    sizes = (_unfolded(layers[name], *use) for name, uses in seen.items() for use in uses)
    return batch_size_for(max(sizes, default=1))


def _unfolded(layer: Layer, inputs: Tensor, outputs: Tensor) -> int:
    """How many numbers an image's unfolded inputs take."""
    outputs = in_batch(layer, outputs)
    positions = outputs[0].numel() // outputs.shape[channel_axis(layer)]
    return positions * layer.weight[0].numel() * groups_of(layer)
