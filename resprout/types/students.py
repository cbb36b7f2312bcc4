"""Pruned classifiers: which weights stay, which channels, and the network that obeys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resprout.classifier import classifier
from resprout.errors import ArtifactError
from resprout.types.teachers import ModelInfo


@dataclass(frozen=True)
class PruningMask:
    """Which weights stay: parameter name (`layer1.0.conv1.weight`) -> bool tensor of the parameter's shape."""

    keep: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, kept in self.keep.items():
            if kept.dtype != torch.bool:
                raise ArtifactError(f"the mask of {name} is {kept.dtype}, not bool")

    @property
    def num_weights(self) -> int:
        return sum(kept.numel() for kept in self.keep.values())

    @property
    def num_kept(self) -> int:
        return sum(int(kept.sum()) for kept in self.keep.values())

    @property
    def sparsity(self) -> float:
        """The share of maskable weights that are gone, in [0, 1]."""
        return 1 - self.num_kept / self.num_weights

    def density(self) -> dict[str, float]:
        """Per parameter, the share of weights that stay, in [0, 1]."""
        return {name: float(kept.float().mean()) for name, kept in self.keep.items()}


@dataclass(frozen=True)
class ChannelPlan:
    """Which channels of the teacher's layers stay: module name -> bool, shape (the layer's channels,).

    Args:
        outputs: of convolutions and linear layers, what they give; of BatchNorm layers, what passes. A depthwise
            convolution takes what it gives, and is named here alone.
        inputs: of convolutions and linear layers, what they take.

    A layer that is not named keeps all of its channels.
    """

    outputs: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for side, named in (("outputs", self.outputs), ("inputs", self.inputs)):
            for name, kept in named.items():
                if kept.dtype != torch.bool or kept.ndim != 1:
                    raise ArtifactError(f"the plan for {name}'s {side} is not a vector of bools")
                if not kept.any():
                    raise ArtifactError(f"the plan for {name} keeps none of its {kept.numel()} {side}")

    def in_teacher(self, name: str, kept: Tensor) -> Tensor:
        """What a mask of a weight that was cut says of the weight as it was: also what was cut off is gone.

        Args:
            name: the weight's, `layer1.0.conv1.weight`.
            kept: bool, of the cut weight's shape.
        """
        layer = name.removesuffix(".weight")
        for axis, side in enumerate((self.outputs, self.inputs)):
            if layer in side:
                shape = (*kept.shape[:axis], side[layer].numel(), *kept.shape[axis + 1 :])
                stays = side[layer].nonzero().flatten()
                kept = torch.zeros(shape, dtype=torch.bool).index_copy(axis, stays, kept.cpu())
        return kept


@dataclass(frozen=True)
class Student:
    """A pruned classifier: the teacher's architecture, its own weights, and the mask they obey bit for bit.

    Where whole channels are gone, `channels` says which, and the network has the layers that are left: its mask has
    their shapes. As the teacher's, it takes images and gives logits. `notes` says what pruning did that its user may
    not expect.
    """

    info: ModelInfo
    network: nn.Module
    mask: PruningMask
    channels: ChannelPlan | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        classifier(self.network, self.info.num_classes, channels_last=self.info.channels_last)

    @property
    def kept(self) -> PruningMask:
        """Which of the teacher's weights stay, in the teacher's shapes: the mask, and the channels that are gone."""
        if self.channels is None:
            return self.mask
        return PruningMask({name: self.channels.in_teacher(name, kept) for name, kept in self.mask.keep.items()})
