"""Reconstruction: each layer's remaining weights solved, in closed form, to give the teacher's outputs on dreams.

Nothing is trained, so there is no step size and no number of epochs: one pass over the layers, a linear system per
output channel. The idea of layer-wise least squares is that of AdaPrune (Hubara et al., arXiv 2102.08124) and Optimal
Brain Compression (Frantar and Alistarh, arXiv 2208.11580); there on calibration data, here on dreams.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from resprout.channels import shrink
from resprout.checkpoints import Checkpoint, check_like
from resprout.classifier import laid_out
from resprout.errors import DivergedError
from resprout.hooks import each_use
from resprout.patches import Layer, as_matrices, batch_size_for, channel_axis, groups_of, is_plain
from resprout.types import ChannelPlan, PruningMask

LayerWatch = Callable[[int, int, dict[str, float]], None]


@dataclass
class _Moments:
    """Sums over all positions of all images that determine a layer's least-squares problem, in float64.

    Args:
        inputs: of x xᵀ, shape (groups, fan_in, fan_in).
        products: of x yᵀ, shape (groups, fan_in, out_channels / groups).
        energy: of |y|².
    """

    inputs: Tensor
    products: Tensor
    energy: Tensor


@torch.no_grad()
def reconstruct(
    teacher: nn.Module,
    student: nn.Module,
    mask: PruningMask,
    images: Tensor,
    *,
    channels: ChannelPlan | None = None,
    ridge: float,
    device: torch.device,
    watch: LayerWatch,
    checkpoint: Checkpoint | None = None,
    key: str = "reconstruction",
) -> tuple[nn.Module, dict[str, float]]:
    """Solve a copy of the student layer by layer, in the order in which they run.

    For each output channel, with x its inputs in the student *as solved so far*, y its output in the teacher, w its
    kept weights and v the teacher's: min over w of sum |w·x - y|² + r |w - v|². Each layer thus also makes up for what
    the layers before it still get wrong. BatchNorm keeps the teacher's statistics: they are of real data, and now
    they fit.

    Args:
        teacher, student: of one architecture, but for the channels that the student lacks; are not changed.
        mask: its pruned weights stay exactly 0. Layers that it does not cover, and those that are neither exactly
            nn.Conv2d nor nn.Linear (a subclass may compute something else), are left as they are.
        images: float32, shape (n, channels, height, width), normalised space.
        channels: which of the teacher's channels the student has. What a layer is solved for is then the teacher's
            output on those; None: all.
        ridge: r in units of the inputs' mean square; keeps weights that the images say little about near the teacher's.
        watch: is told how many layers of how many are done, and the last one's relative error.
        checkpoint, key: where the layers solved so far are kept and found.

    Raises:
        DivergedError: a layer's system has no solution in numbers.

    Returns:
        The student in evaluation mode on the CPU, and for each solved layer |student - teacher|² / |teacher|² of its
        output.
    """
    source = laid_out(copy.deepcopy(teacher).eval().to(device))
    solved = laid_out(copy.deepcopy(student).eval().to(device))
    layers, uses = _in_running_order(solved, solvable(solved, mask), images[:2].to(device))
    originals = dict((source if channels is None else shrink(source, channels)).named_parameters())
    outputs = {} if channels is None else channels.outputs
    errors = _restore(layers, checkpoint, key)
    for name, layer in layers.items():
        if name in errors:
            continue
        moments = _moments(source, solved, name, layer, images, outputs.get(name), uses[name])
        keep = mask.keep[f"{name}.weight"].to(device)
        try:
            solution, errors[name] = _solve(moments, originals[f"{name}.weight"].double(), keep, ridge)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            solution = torch.full_like(layer.weight, torch.nan)
        if not solution.isfinite().all():
            raise DivergedError(
                f"the layer {name} cannot be solved",
                why="its inputs on dreams are no numbers, or say too little about its weights",
                now="raise recovery.ridge, or recover by distillation with start: repaired",
            )
        layer.weight.copy_(solution)
        if checkpoint is not None:
            weights = {other: layers[other].weight for other in errors}
            checkpoint.save(key, weights, {"errors": errors})
        watch(len(errors), len(layers), {"relative_error": errors[name]})
    return solved.cpu(), errors


def _restore(layers: Mapping[str, Layer], checkpoint: Checkpoint | None, key: str) -> dict[str, float]:
    """Put the weights that were solved before a kill into the layers; their relative errors, none where it starts."""
    if checkpoint is None:
        return {}
    at_most = sum(layer.weight.nbytes for layer in layers.values())
    return checkpoint.load(key, lambda state: _put_back(layers, *state), at_most=at_most) or {}


def _put_back(layers: Mapping[str, Layer], weights: dict[str, Tensor], about: dict[str, Any]) -> dict[str, float]:
    errors: dict[str, float] = about["errors"]
    # each layer is solved for what the layers before it still get wrong
    first = dict(list(layers.items())[: len(errors)])
    if list(errors) != list(first) or not all(map(math.isfinite, errors.values())):
        raise ValueError("it does not hold the layers that run first")
    check_like(weights, {name: layer.weight for name, layer in first.items()})
    for name, layer in first.items():
        layer.weight.copy_(weights[name])
    return errors


def solvable(network: nn.Module, mask: PruningMask) -> list[str]:
    """The names of the pruned layers whose outputs are known to be linear in their weights, in the mask's order."""
    names = [name.removesuffix(".weight") for name in mask.keep]
    return [name for name in names if is_plain(network.get_submodule(name))]


def _in_running_order(network: nn.Module, names: list[str], images: Tensor) -> tuple[dict[str, Layer], dict[str, int]]:
    """The layers that images pass, in the order in which they do so first, and how often they pass each."""
    layers = {name: cast(Layer, network.get_submodule(name)) for name in names}
    with each_use(network, layers, lambda _inputs: None, before=True) as uses:
        network(images)
    return {name: layers[name] for name in uses}, {name: len(each) for name, each in uses.items()}


class _ReachedError(Exception):
    """The layer that was asked about has run: the rest of the network need not."""


def _run_to(network: nn.Module, name: str, images: Tensor, uses: int) -> list[tuple[Tensor, Tensor]]:
    """What a layer takes in and gives out for `images`, in each use; what comes after the last is not computed."""
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))
        if len(seen) == uses:
            raise _ReachedError

    handle = network.get_submodule(name).register_forward_hook(hook)
    try:
        network(images)
    except _ReachedError:
        pass
    finally:
        handle.remove()
    return seen


def _moments(
    teacher: nn.Module,
    student: nn.Module,
    name: str,
    layer: Layer,
    images: Tensor,
    kept_outputs: Tensor | None,
    uses: int,
) -> _Moments:
    device = layer.weight.device
    fan_in, groups = layer.weight[0].numel(), groups_of(layer)
    nothing = torch.zeros((), dtype=torch.float64, device=device)
    per_group = len(layer.weight) // groups
    total = _Moments(nothing.new_zeros(groups, fan_in, fan_in), nothing.new_zeros(groups, fan_in, per_group), nothing)
    for batch in _batches(student, name, layer, images):
        placed = batch.to(device)
        taken, given = _run_to(student, name, placed, uses), _run_to(teacher, name, placed, uses)
        for (inputs, _), (_, outputs) in zip(taken, given, strict=False):
            if kept_outputs is not None:
                outputs = outputs.index_select(channel_axis(layer), kept_outputs.nonzero().flatten().to(device))
            x, y = as_matrices(layer, inputs, outputs)
            total.inputs += x @ x.mT
            total.products += x @ y.mT
            total.energy += y.square().sum(dtype=torch.float64)
    return total


def _batches(network: nn.Module, name: str, layer: Layer, images: Tensor) -> tuple[Tensor, ...]:
    x, _ = as_matrices(layer, *_run_to(network, name, images[:1].to(layer.weight.device), 1)[0])
    batches: tuple[Tensor, ...] = images.split(batch_size_for(x.numel()))
    return batches


def _solve(moments: _Moments, original: Tensor, keep: Tensor, ridge: float) -> tuple[Tensor, float]:
    """The kept weights that reproduce the outputs best, in the shape of `original`, and the relative error they leave.

    Args:
        original: the teacher's weights, float64; `keep` has its shape.
    """
    groups, fan_in, per_group = moments.products.shape
    old, kept = original.reshape(groups, per_group, fan_in), keep.reshape(groups, per_group, fan_in)
    solution = torch.zeros_like(old)
    error = moments.energy.clone()
    for group in range(groups):
        gram, products = moments.inputs[group], moments.products[group]
        penalty = ridge * gram.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        # where nothing is masked, one system gives all channels
        whole = bool(kept[group].all())
        for channels in [torch.arange(per_group)] if whole else torch.arange(per_group).split(1):
            chosen = kept[group, channels[0]].nonzero().squeeze(1)
            if not len(chosen):
                continue
            square = gram[chosen[:, None], chosen]
            right = products[chosen[:, None], channels]
            regular = square + penalty * torch.eye(len(chosen), dtype=gram.dtype, device=gram.device)
            factor = torch.linalg.cholesky(regular)
            weights = torch.cholesky_solve(right + penalty * old[group, channels[:, None], chosen].mT, factor)
            solution[group, channels[:, None], chosen] = weights.mT
            error += (weights * (square @ weights - 2 * right)).sum()
    relative = float((error / moments.energy.clamp_min(torch.finfo(torch.float64).tiny)).clamp_min(0))
    return solution.reshape(original.shape).float(), relative
