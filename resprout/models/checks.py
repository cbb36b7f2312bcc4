"""What a network must be before anything is built on it; each check raises UnsupportedModelError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from resprout.batchnorm import BatchNorm
from resprout.errors import UnsupportedModelError
from resprout.types import ModelInfo
from resprout.wording import listed


def check_has_batch_norm(layers: Mapping[str, BatchNorm], architecture: str) -> None:
    """Refuse a network without BatchNorm layers that keep running statistics."""
    if not layers:
        raise UnsupportedModelError(
            f"{architecture} has no BatchNorm layer with running statistics",
            why="dreams are synthesized from these statistics; there is nothing to match",
            now="use a teacher with BatchNorm, before any folding for export",
        )


def check_real(network: nn.Module, architecture: str) -> None:
    """Refuse a network with complex weights, which number formats, optimisers and masks would take for real ones."""
    complex_weights = [name for name, parameter in network.named_parameters() if parameter.is_complex()]
    if complex_weights:
        raise UnsupportedModelError(
            f"{architecture} has complex weights: {listed(complex_weights)}",
            why="they would be converted to real numbers, and lose half of what they say",
            now="keep them as real and imaginary parts, and put them together in forward with torch.view_as_complex",
        )


def check_statistics(layers: Mapping[str, BatchNorm], architecture: str) -> None:
    """Refuse statistics that dreams cannot be made from: none, never trained, or negative variances.

    Args:
        layers: those that images pass, by name.
    """
    if not layers:
        raise UnsupportedModelError(
            f"{architecture} passes its input through no BatchNorm layer with running statistics",
            why="dreams are synthesized from these statistics; there is nothing to match",
            now="use a network that runs its BatchNorm layers in evaluation mode",
        )
    untouched = [name for name, layer in layers.items() if _is_untouched(layer)]
    if untouched:
        raise _never_trained(architecture, untouched, len(layers))
    negative = [name for name, layer in layers.items() if (_statistics(layer)[1] < 0).any()]
    if negative:
        raise UnsupportedModelError(
            f"{architecture} has negative running variances in {listed(negative)}",
            why="no data has a negative variance; the file is damaged",
            now="fetch the checkpoint again",
        )


def check_logits(logits: object, batch: int, info: ModelInfo) -> None:
    """Refuse what is not finite logits for a batch of images, shape (batch, classes)."""
    if not isinstance(logits, Tensor) or logits.shape != (batch, info.num_classes):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedModelError(
            f"{info.architecture} returns {got} for {batch} image{'s' * (batch > 1)}, not logits of shape "
            f"{[batch, info.num_classes]}",
            why="Resprout compresses classifiers",
            now="correct teacher.num_classes; or let its forward return logits, alone or as `logits` beside others",
        )
    if not torch.isfinite(logits).all():
        raise UnsupportedModelError(f"{info.architecture} returns NaN or infinity for a plain image")


def _statistics(layer: BatchNorm) -> tuple[Tensor, Tensor]:
    state = layer.state_dict()
    return state["running_mean"], state["running_var"]


def _is_untouched(layer: BatchNorm) -> bool:
    mean, variance = _statistics(layer)
    return bool((mean == 0).all() and (variance == 1).all())


def _never_trained(architecture: str, untouched: Sequence[str], total: int) -> UnsupportedModelError:
    some = f"{len(untouched)} of its {total}" if len(untouched) < total else f"{total}"
    which = f": {listed(untouched)}" if len(untouched) < total else ""
    return UnsupportedModelError(
        f"{architecture} has {some} BatchNorm layers that were never trained (running mean 0, variance 1){which}",
        why="dreams are synthesized from these statistics; there is nothing to match",
        now="check that the checkpoint holds running_mean and running_var (is it a folded or an export copy?)",
    )
