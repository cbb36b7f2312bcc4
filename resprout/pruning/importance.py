"""How much is missed with a channel that runs through several layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from resprout.patches import channel_axis
from resprout.precision import frozen_copy
from resprout.progress import Progress, Report
from resprout.pruning.groups import Group
from resprout.pruning.guidance import drawn_loss

BATCH_SIZE = 64


def magnitudes(network: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
    """The squared norm of all weights that a channel takes with it, in units of its group's mean.

    Section 3.3, arXiv 2301.12900: summed over all members, so that a channel counts as small only where it is small
    everywhere.

    Returns:
        Float64, shape (channels,), for each group.
    """
    found = []
    for group in groups:
        total = torch.zeros(group.channels, dtype=torch.float64)
        for member in group.members:
            weight = network.get_submodule(member.layer).weight
            if isinstance(weight, Tensor):  # a BatchNorm layer may have none
                squares = weight.detach().double().cpu().square()
                by_channel = squares.movedim(int(member.inputs), 0).flatten(1) if weight.ndim > 1 else squares[:, None]
                total += by_channel.sum(1)[member.index].sum(1)
        found.append(total / total.mean().clamp_min(torch.finfo(torch.float64).tiny))
    return found


def taylor_scores(
    network: nn.Module,
    groups: Sequence[Group],
    images: Tensor,
    *,
    generator: torch.Generator,
    device: torch.device,
    report: Report,
) -> list[Tensor]:
    """How much a teacher's answers change, to first order, where a channel is taken from all layers that take it.

    Eq. 8, arXiv 1906.10771: the squared sum of gradient x value, here of a gate on the channel, averaged over images. A
    teacher's own gradient of its distillation loss is exactly zero, so that labels are drawn from its softened answers
    instead, as for the Fisher information: gradients then cancel over images, and their squares do not.

    Args:
        network: the teacher.
        images: float, shape (n, channels, height, width), normalised space.
        generator: on the CPU; draws the labels.

    Returns:
        Float64, shape (channels,), for each group; comparable between groups.
    """
    running = frozen_copy(network, torch.float32, device)
    takers = [(number, member) for number, group in enumerate(groups) for member in group.members if member.inputs]
    total = [torch.zeros(group.channels, dtype=torch.float64) for group in groups]
    with _gates(running, {member.layer for _, member in takers}) as gates:
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE].to(device=device, dtype=torch.float32)
            logits = running(batch)
            loss = drawn_loss(logits, generator)
            # an auxiliary head runs and leads to no logit
            found = torch.autograd.grad(loss, list(gates.values()), materialize_grads=True)
            gradients = dict(zip(gates, found, strict=True))
            effects = [torch.zeros(len(batch), group.channels, dtype=torch.float64) for group in groups]
            for number, member in takers:
                own = gradients[member.layer].flatten(1).double().cpu()
                effects[number] += own[:, member.index].sum(2)
            for number, effect in enumerate(effects):
                total[number] += effect.square().sum(0) / len(images)
            report(Progress("pruning", min(start + BATCH_SIZE, len(images)), len(images), "images"))
    return total


@contextmanager
def _gates(network: nn.Module, names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Multiply each channel that the named layers take by a one of its own for every image, anew in each pass.

    Yields:
        Layer -> its gates, which gradients are asked for; the hooks are gone when the block ends.
    """
    gates: dict[str, Tensor] = {}

    def hook_for(name: str) -> Callable[..., tuple[Tensor, ...]]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            values = inputs[0]
            shape = [len(values)] + [1] * (values.ndim - 1)
            axis = channel_axis(layer)
            shape[axis] = values.shape[axis]
            if name not in gates:  # a layer that is used several times loses the channel in each
                gates[name] = torch.ones(shape, device=values.device, requires_grad=True)
            return (values * gates[name], *inputs[1:])

        return hook

    handles = [network.register_forward_pre_hook(lambda *_: gates.clear())]
    handles += [network.get_submodule(name).register_forward_pre_hook(hook_for(name)) for name in sorted(names)]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()
