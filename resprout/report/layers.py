"""How the pruned weights spread over the layers."""

from __future__ import annotations

from dataclasses import dataclass

from resprout.report.charts import Chart, profile
from resprout.types import PruningMask

MAX_BARS = 40
"""Networks with more layers get one profile in network order, and their bars on demand."""


@dataclass(frozen=True)
class LayerSparsity:
    """A layer's weights: how many there are, how many stay, and the share that is gone, in [0, 1]."""

    name: str
    total: int
    kept: int

    @property
    def sparsity(self) -> float:
        return 1 - self.kept / self.total


def layer_sparsities(mask: PruningMask) -> tuple[LayerSparsity, ...]:
    """One per masked parameter that has weights, in the mask's order; `.weight`, which all end in, is left out."""
    return tuple(
        LayerSparsity(name.removesuffix(".weight"), kept.numel(), int(kept.sum()))
        for name, kept in mask.keep.items()
        if kept.numel()
    )


def sparsity_profile(mask: PruningMask) -> Chart | None:
    """All layers in one chart, for networks with too many for a bar each; None for the others."""
    layers = layer_sparsities(mask)
    if len(layers) <= MAX_BARS:
        return None
    return profile(
        "Sparsity by layer",
        [layer.sparsity for layer in layers],
        mask.sparsity,
        note="share of the layer’s weights that are gone",
    )
