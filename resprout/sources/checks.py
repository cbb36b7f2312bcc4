"""What a teacher must be before anything is built on it; each check raises UnsupportedModelError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from resprout.batchnorm import BatchNorm, batch_norm_layers
from resprout.errors import UnsupportedModelError
from resprout.types import InputSpec


def load_checked(network: nn.Module, state: Mapping[str, Tensor], source: str, architecture: str) -> None:
    """Load a state dict that fits: the same names, the same shapes, no NaN or infinity."""
    own = network.state_dict()
    # checkpoints from before torch 0.4.1 do not count batches, and nothing here needs the count
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    statistics = [name for name in own if name.endswith("running_mean")]
    if statistics and set(statistics) <= set(missing):
        raise _folded(source, architecture, len(statistics))
    problems = [
        f"{len(names)} {what} ({_first(names)})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise UnsupportedModelError(
            f"the weights of '{source}' do not fit {architecture}: {', '.join(problems)}",
            why="they were saved from another network",
            now="correct teacher.architecture, teacher.arguments, teacher.num_classes or the channels of teacher.input",
        )
    check_finite(state, source)
    network.load_state_dict(state, strict=False)


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights or statistics that hold NaN or infinity."""
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UnsupportedModelError(
            f"'{source}' holds NaN or infinity in {len(broken)} of {len(state)} tensors ({_first(broken)})",
            why="its training diverged, or the file is damaged; whatever it computes is NaN",
            now="take an earlier checkpoint",
        )


def check_batch_norm(network: nn.Module, architecture: str) -> None:
    """Refuse a network without usable BatchNorm statistics: none, never trained, or negative variances."""
    layers = batch_norm_layers(network)
    if not layers:
        raise UnsupportedModelError(
            f"{architecture} has no BatchNorm layer with running statistics",
            why="dreams are synthesized from these statistics; there is nothing to match",
            now="use a teacher with BatchNorm, before any folding for export",
        )
    untouched = [name for name, layer in layers.items() if _is_untouched(layer)]
    if untouched:
        raise _never_trained(architecture, untouched, len(layers))
    negative = [name for name, layer in layers.items() if (_statistics(layer)[1] < 0).any()]
    if negative:
        raise UnsupportedModelError(
            f"{architecture} has negative running variances in {_first(negative)}",
            why="no data has a negative variance; the file is damaged",
            now="fetch the checkpoint again",
        )


def check_forward(network: nn.Module, spec: InputSpec, num_classes: int, architecture: str) -> None:
    """Refuse a network that does not turn one image of the input's shape into finite logits, shape (1, num_classes)."""
    now = "correct teacher.input.shape (channels, height, width) or teacher.num_classes"
    try:
        with torch.no_grad():
            logits = network(torch.zeros(1, *spec.shape))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedModelError(
            f"{architecture} fails on an image of shape {list(spec.shape)}: {reason}", now=now
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (1, num_classes):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedModelError(
            f"{architecture} returns {got} for one image, not logits of shape {[1, num_classes]}",
            why="Resprout compresses classifiers",
            now=now,
        )
    if not torch.isfinite(logits).all():
        raise UnsupportedModelError(f"{architecture} returns NaN or infinity for a black image")


def _statistics(layer: BatchNorm) -> tuple[Tensor, Tensor]:
    state = layer.state_dict()
    return state["running_mean"], state["running_var"]


def _is_untouched(layer: BatchNorm) -> bool:
    mean, variance = _statistics(layer)
    return bool((mean == 0).all() and (variance == 1).all())


def _never_trained(architecture: str, untouched: Sequence[str], total: int) -> UnsupportedModelError:
    some = f"{len(untouched)} of its {total}" if len(untouched) < total else f"{total}"
    which = f": {_first(untouched)}" if len(untouched) < total else ""
    return UnsupportedModelError(
        f"{architecture} has {some} BatchNorm layers that were never trained (running mean 0, variance 1){which}",
        why="dreams are synthesized from these statistics; there is nothing to match",
        now="check that the checkpoint holds running_mean and running_var (is it a folded or an export copy?)",
    )


def _folded(source: str, architecture: str, layers: int) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"'{source}' holds no BatchNorm statistics, where {architecture} has {layers} BatchNorm layers",
        why="dreams are synthesized from these statistics; BatchNorm was folded away, or not saved",
        now="take the checkpoint from before folding or export, with running_mean and running_var",
    )


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
