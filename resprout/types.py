"""What travels between the stages: frozen dataclasses whose invariants are checked once, here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resprout.errors import ArtifactError, UnsupportedModelError
from resprout.progress import Report

Stored = Callable[[str, Path, Report], Path]
"""Fetches what lies at an s3:// address into a folder, and says which file or folder it is."""


@dataclass(frozen=True)
class InputSpec:
    """The images a network expects.

    Args:
        shape: (channels, height, width).
        mean: per channel, in [0, 1] pixel space; normalised = (pixel - mean) / std.
        std: per channel, above 0.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise UnsupportedModelError(
                f"input shape {list(self.shape)} is not (channels, height, width)",
                now="set teacher.input.shape, for example [3, 32, 32]",
            )
        if len(self.mean) != self.shape[0] or len(self.std) != self.shape[0]:
            raise UnsupportedModelError(
                f"normalisation has {len(self.mean)} means and {len(self.std)} standard deviations "
                f"for {self.shape[0]} channels",
                now="give teacher.input.mean and teacher.input.std one value per channel",
            )
        if min(self.std) <= 0:
            raise UnsupportedModelError(
                f"normalisation has a standard deviation of {min(self.std)}",
                why="images are divided by it",
                now="give teacher.input.std values above 0, in [0, 1] pixel space",
            )

    def normalise(self, pixels: Tensor) -> Tensor:
        """From [0, 1] pixel space, shape (..., channels, height, width), to normalised model-input space."""
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)

    def to_pixels(self, images: Tensor) -> Tensor:
        """From normalised model-input space back to pixels, clamped to [0, 1]."""
        return (images * self._column(self.std, images) + self._column(self.mean, images)).clamp(0, 1)

    @staticmethod
    def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)


@dataclass(frozen=True)
class ModelInfo:
    """How to build a network and how to feed it; everything about a classifier but its weights.

    Args:
        architecture: a name that `resprout.models.build` knows.
        num_classes: the length of the logits, at least 2.
        input: what images it takes.
        class_names: one per class, in the order of the logits.
        arguments: keyword arguments of the architecture's constructor (JSON values).
        custom_code: the architecture is a user's own `package.module:function`, which the recipe allowed.
    """

    architecture: str
    num_classes: int
    input: InputSpec
    class_names: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    custom_code: bool = False

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise UnsupportedModelError(f"a classifier needs at least 2 classes, not {self.num_classes}")
        if len(self.class_names) != self.num_classes:
            raise UnsupportedModelError(
                f"{len(self.class_names)} class names for {self.num_classes} classes",
                now="give teacher.class_names one name per class, or leave it out",
            )


@dataclass(frozen=True)
class Teacher:
    """A trained classifier, in evaluation mode, its weights frozen.

    `source` says where it came from, without secrets; `digest` is the sha256 of the weights file that was read.
    """

    info: ModelInfo
    network: nn.Module
    source: str = ""
    digest: str = ""


@dataclass(frozen=True)
class LayerStatistics:
    """One BatchNorm layer's running statistics.

    Args:
        name: its dotted module name.
        mean: float32, shape (channels,).
        variance: float32, shape (channels,), not negative.
        eps: the layer's own, as in (x - mean) / sqrt(variance + eps).
        spatial: (height, width) of its input for an image of the teacher's input shape; () for a 1-d layer.
    """

    name: str
    mean: Tensor
    variance: Tensor
    eps: float
    spatial: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        return int(self.mean.numel())


@dataclass(frozen=True)
class BNStatistics:
    """The running statistics of every BatchNorm layer, in network order."""

    layers: tuple[LayerStatistics, ...]

    def __post_init__(self) -> None:
        for layer in self.layers:
            if layer.mean.shape != layer.variance.shape or layer.mean.ndim != 1:
                raise ArtifactError(f"statistics of {layer.name}: mean and variance differ in shape or are not vectors")
            if not (torch.isfinite(layer.mean).all() and torch.isfinite(layer.variance).all()):
                raise ArtifactError(f"statistics of {layer.name} hold NaN or infinity")
            if (layer.variance < 0).any():
                raise ArtifactError(f"statistics of {layer.name} hold a negative variance")

    @property
    def num_channels(self) -> int:
        return sum(layer.channels for layer in self.layers)


@dataclass(frozen=True)
class DreamGroup:
    """Dreams that were synthesized together, with a seed of their own.

    Args:
        index: which of all groups this is.
        images: float16, shape (n, channels, height, width), in normalised model-input space.
        targets: int64, shape (n,).
        held_out: whether they are never to be trained on.
        curves: per-iteration losses: name -> float32, shape (iterations,).
    """

    index: int
    images: Tensor
    targets: Tensor
    held_out: bool
    curves: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class DreamShard:
    """What one of several workers synthesized: some of the `num_groups` groups of a `DreamSet`."""

    groups: Sequence[DreamGroup]
    num_groups: int
    num_classes: int

    @property
    def num_images(self) -> int:
        return sum(len(group.images) for group in self.groups)


@dataclass(frozen=True)
class DreamSet:
    """Synthesized images and the classes they were synthesized for.

    Args:
        images: float16, shape (n, channels, height, width), in **normalised model-input space**; the last
            `num_held_out` are never trained on, so that agreement measured on them means something.
        targets: int64, shape (n,).
        num_held_out: how many at the end are held out.
        num_classes: the number of classes that the targets are drawn from.
        curves: per-iteration losses, averaged over the groups: name -> float32, shape (iterations,).
    """

    images: Tensor
    targets: Tensor
    num_held_out: int
    num_classes: int
    curves: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.targets.shape != self.images.shape[:1]:
            raise ArtifactError(
                f"dreams of shape {list(self.images.shape)} with targets of shape {list(self.targets.shape)}"
            )
        if not 0 <= self.num_held_out <= len(self.images):
            raise ArtifactError(f"{self.num_held_out} held-out dreams of {len(self.images)}")
        if not torch.isfinite(self.images).all():
            raise ArtifactError(
                "dreams hold NaN or infinity",
                why="no student can learn from them",
                now="lower synthesis.learning_rate",
            )

    @property
    def num_training(self) -> int:
        return len(self.images) - self.num_held_out

    @property
    def training(self) -> tuple[Tensor, Tensor]:
        """(images, targets) to train on."""
        return self.images[: self.num_training], self.targets[: self.num_training]

    @property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """(images, targets) to select and to judge on."""
        return self.images[self.num_training :], self.targets[self.num_training :]


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
    their shapes.
    """

    info: ModelInfo
    network: nn.Module
    mask: PruningMask
    channels: ChannelPlan | None = None

    @property
    def kept(self) -> PruningMask:
        """Which of the teacher's weights stay, in the teacher's shapes: the mask, and the channels that are gone."""
        if self.channels is None:
            return self.mask
        return PruningMask({name: self.channels.in_teacher(name, kept) for name, kept in self.mask.keep.items()})


@dataclass(frozen=True)
class LabelledImages:
    """A labelled test set.

    Args:
        images: uint8, shape (n, channels, height, width), in pixel space.
        labels: int64, shape (n,).
        class_names: one per class, in label order.
        source: where it was read from.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True)
class ModelScore:
    """How one network does.

    Args:
        name: `teacher`, `pruned`, `repaired` (BatchNorm re-estimated on dreams) or `recovered`.
        agreement: the share of held-out dreams, and of blends of them, on which its top-1 is the teacher's, in [0, 1];
            None without any.
        kl_divergence: mean KL(teacher || network) on the same at temperature 1, in nats.
        top1: accuracy on the labelled test set, in [0, 1]; None where none was given.
        confusion: counts, int64, shape (classes, classes), row = label, column = prediction.
    """

    name: str
    agreement: float | None
    kl_divergence: float | None
    top1: float | None = None
    confusion: Tensor | None = None


@dataclass(frozen=True)
class ModelCost:
    """What one network costs.

    Args:
        parameters: all of them.
        nonzero_parameters: those that are not exactly zero.
        dense_macs: multiply-accumulates of one image through convolutions and linear layers.
        effective_macs: the same, counting only weights that are not zero.
        sparsity: the share of the teacher's maskable weights that are zero, or gone with their channels, in [0, 1].
    """

    parameters: int
    nonzero_parameters: int
    dense_macs: int
    effective_macs: int
    sparsity: float


@dataclass(frozen=True)
class StoredSize:
    """What one network takes to store or to ship, as its artifact: weights, mask, and what describes them.

    Args:
        size_bytes: of the folder's files as they are. A masked network's tensors keep their shape, so that pruning
            single weights saves nothing here, and its mask comes on top.
        compressed_size_bytes: of the same files compressed one by one; here zeros count for little.
    """

    size_bytes: int
    compressed_size_bytes: int


@dataclass(frozen=True)
class Latency:
    """How long a student takes for a batch, against its teacher on the same machine.

    Args:
        ratio: the median of what pairs of runs took, student / teacher.
        batch_size: images in a batch.
        pairs: how many there were.
        device: what both ran on, as torch calls it: `cpu` or `cuda`.
    """

    ratio: float
    batch_size: int
    pairs: int
    device: str


@dataclass(frozen=True)
class Evaluation:
    """Every network's score and cost, teacher first.

    Args:
        scores: how well each does.
        costs: what each computes.
        num_test_images: labelled ones; 0 without a test set.
        num_held_out_dreams: without the blends of them.
        class_names: one per class, in the order of the confusion matrices.
        sizes: of the networks whose artifacts were looked at.
        latency: the recovered student's; None where it was not measured.
    """

    scores: Sequence[ModelScore]
    costs: Mapping[str, ModelCost]
    num_test_images: int
    num_held_out_dreams: int
    class_names: tuple[str, ...]
    sizes: Mapping[str, StoredSize] = field(default_factory=dict)
    latency: Latency | None = None

    def score(self, name: str) -> ModelScore:
        """The score of the network called `name`; KeyError when it was not evaluated."""
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(name)


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
