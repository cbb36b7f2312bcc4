"""Weights that fit a network, or a refusal; each check raises UnsupportedModelError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from resprout.errors import UnsupportedModelError


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


def _folded(source: str, architecture: str, layers: int) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"'{source}' holds no BatchNorm statistics, where {architecture} has {layers} BatchNorm layers",
        why="dreams are synthesized from these statistics; BatchNorm was folded away, or not saved",
        now="take the checkpoint from before folding or export, with running_mean and running_var",
    )


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
