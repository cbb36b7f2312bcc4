"""What is asked of weights and networks before they are put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from resprout.classifier import tensors_in
from resprout.errors import UnsupportedModelError
from resprout.sources.contents import entries_of
from resprout.types import InputSpec
from resprout.wording import listed


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights or statistics that hold NaN or infinity."""
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UnsupportedModelError(
            f"'{source}' holds NaN or infinity in {len(broken)} of {len(state)} tensors ({listed(broken)})",
            why="its training diverged, or the file is damaged; whatever it computes is NaN",
            now="take an earlier checkpoint",
        )


def check_num_classes(num_classes: int, content: Any, source: str) -> None:
    """Refuse more classes than any of the tensors has numbers: the network would be as large as the claim."""
    longest = max((entry.tensor.numel() for entry in entries_of(content).values()), default=0)
    if num_classes > longest:
        raise UnsupportedModelError(
            f"{num_classes:,} classes, and no tensor of '{source}' has more than {longest:,} numbers",
            why="a classifier has at least one weight for each of its classes",
            now="correct teacher.num_classes, or leave it out",
        )


def length_of_logits(network: nn.Module, spec: InputSpec) -> set[int]:
    """How many logits a network gives for one image; empty where it gives none."""
    try:
        with torch.no_grad():
            named = list(tensors_in(network.eval()(torch.zeros(1, *spec.shape))))
    except Exception:  # anybody's network: it may fail in any way; the rehearsal says how
        return set()
    return {next((found for name, found in named if name == "logits"), named[0][1]).numel()} if named else set()
