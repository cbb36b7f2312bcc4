"""How networks do and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class ModelScore:
    """How one network does.

    Args:
        name: `teacher`, `pruned`, `repaired` (BatchNorm re-estimated on dreams) or `recovered`.
        agreement: the share of held-out dreams, and of blends of them, on which its top-1 is the teacher's, in [0, 1];
            None without any.
        kl_divergence: mean KL(teacher || network) on the same at temperature 1, in nats.
        top1: accuracy on the labelled test set, in [0, 1]; None where none was given.
        confusion: label, prediction, number of images, for the pairs that occur; int64, shape (pairs, 3).
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
        class_names: one per class, as confusions count them.
        sizes: of the networks whose artifacts were looked at.
        latency: the recovered student's; None where it was not measured.
        images_source: where real images came from that took the place of dreams; empty where it was dreams.
    """

    scores: Sequence[ModelScore]
    costs: Mapping[str, ModelCost]
    num_test_images: int
    num_held_out_dreams: int
    class_names: tuple[str, ...]
    sizes: Mapping[str, StoredSize] = field(default_factory=dict)
    latency: Latency | None = None
    images_source: str = ""

    @property
    def held_out_kind(self) -> str:
        """What agreement was measured on, in a word: `dreams`, or real `images`."""
        return "images" if self.images_source else "dreams"

    def score(self, name: str) -> ModelScore:
        """The score of the network called `name`; KeyError when it was not evaluated."""
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(name)
