"""What each layer alone can spare."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from resprout.errors import ArtifactError


@dataclass(frozen=True)
class Sensitivity:
    """What it costs to prune one layer alone, for each layer and several shares of its weights.

    Args:
        layers: parameter names, in network order.
        num_weights: of each layer.
        sparsities: the shares of a layer's weights that were removed, in (0, 1), ascending.
        agreement: with the teacher on held-out dreams and their blends, in [0, 1]; float64, shape (layers, sparsities).
        kl_divergence: mean KL(teacher || network) on the same, in nats; likewise.
        top1: accuracy on the labelled test set, in [0, 1]; likewise, or None where none was given.
        teacher_top1: the whole teacher's, or None.
        num_repair_dreams: on how many dreams BatchNorm was re-estimated after each pruning; 0: it was not.
        num_held_out_dreams: that agreement was measured on, without the blends of them.
        whole_agreement: with nothing pruned, in [0, 1]: less than 1 where re-estimating BatchNorm costs answers itself.
        images_source: where real images came from that took the place of dreams; empty where it was dreams.
    """

    layers: tuple[str, ...]
    num_weights: tuple[int, ...]
    sparsities: tuple[float, ...]
    agreement: Tensor
    kl_divergence: Tensor
    top1: Tensor | None = None
    teacher_top1: float | None = None
    num_repair_dreams: int = 0
    num_held_out_dreams: int = 0
    whole_agreement: float = 1.0
    images_source: str = ""

    def __post_init__(self) -> None:
        expected = (len(self.layers), len(self.sparsities))
        for name in ("agreement", "kl_divergence", "top1"):
            measured = getattr(self, name)
            if measured is not None and tuple(measured.shape) != expected:
                raise ArtifactError(f"sensitivity: {name} is {list(measured.shape)}, not {list(expected)}")
        if len(self.num_weights) != len(self.layers):
            raise ArtifactError(f"sensitivity: {len(self.num_weights)} sizes of {len(self.layers)} layers")

    def ranking(self) -> list[tuple[str, float]]:
        """(layer, share of answers lost by pruning it, averaged over the sparsities), most sensitive first.

        What is lost with nothing pruned does not count. Among layers that lose as many answers, the one with the higher
        KL comes first.
        """
        lost, distance = self.whole_agreement - self.agreement.mean(1), self.kl_divergence.mean(1)
        order = sorted(range(len(self.layers)), key=lambda index: (-float(lost[index]), -float(distance[index])))
        return [(self.layers[index], float(lost[index])) for index in order]
