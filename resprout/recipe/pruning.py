"""What pruning can be told: one frozen section for each way to choose what goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from resprout.errors import RecipeError
from resprout.recipe.base import Section, method_or

Sparsity = Annotated[
    Annotated[float, Field(gt=0, lt=1), Tag("<share>")] | Annotated[Literal["auto"], Tag("<auto>")],
    Discriminator(lambda value: "<auto>" if value == "auto" else "<share>"),
]


class AnyPruning(Section):
    """What every pruner is told and says."""

    exclude: tuple[str, ...] = ()
    """Globs over parameter names whose weights all stay, for example ["conv1.weight", "fc.*"]."""

    @property
    def looks_at_images(self) -> bool:
        """Whether the criterion itself needs dreams."""
        return False

    @property
    def needs_dreams(self) -> bool:
        """Whether dreams must be there before pruning starts."""
        return self.looks_at_images


class PruningBase(AnyPruning):
    """What pruners are told that can go to any sparsity."""

    sparsity: Sparsity = 0.75
    """The share of maskable weights to remove, in (0, 1). auto: as many as min_agreement allows."""
    min_agreement: float | None = Field(default=None, gt=0, le=1)
    """Only with sparsity: auto, which removes as many weights as it can while the pruned student, with BatchNorm
    re-estimated and nothing trained, agrees with its teacher on this share of held-out dreams and their blends. none:
    0.9. Recovery comes after that and promises nothing of its own: gate.min_agreement holds the result to a share."""
    min_density: float = Field(default=0.0, ge=0, le=1)
    """The share of each layer's weights that stays in any case, and at least one of them; other layers then lose more.
    Of the layer as the teacher has it, whatever rounds have left."""
    rounds: int = Field(default=1, ge=1, le=32)
    """In how many rounds to prune. 1: in one shot. More: each but the last recovers on dreams as the recovery section
    says, before the next one looks again."""
    schedule: Literal["cubic", "geometric"] = "cubic"
    """How much each of several rounds removes. geometric: the same share of what it finds. cubic: much at first, then
    less and less (Zhu and Gupta, arXiv 1710.01878)."""
    round_epochs: int | None = Field(default=None, ge=1)
    """Passes over the dreams after each round but the last; none: recovery.epochs."""

    @model_validator(mode="after")
    def _promises_where_it_chooses(self) -> PruningBase:
        if self.min_agreement is not None and self.sparsity != "auto":
            raise RecipeError(
                f"pruning.min_agreement: is {self.min_agreement:g}, and pruning.sparsity is {self.sparsity:g}",
                why="a sparsity that is given is kept, whatever the agreement",
                now="set pruning.sparsity to auto; or hold the result to it with gate.min_agreement",
            )
        return self

    @property
    def needs_dreams(self) -> bool:
        """Whether dreams must be there before pruning starts: for the criterion, the sparsity, or between rounds."""
        return self.looks_at_images or self.sparsity == "auto" or self.rounds > 1


class GlobalMagnitudeSection(PruningBase):
    """The smallest weights of the whole network go (global L1)."""

    method: Literal["global_magnitude"] = "global_magnitude"


class LayerMagnitudeSection(PruningBase):
    """The smallest weights of each layer go: every layer ends at the same sparsity."""

    method: Literal["layer_magnitude"] = "layer_magnitude"


class LampSection(PruningBase):
    """The weights go that their layer misses least (LAMP, arXiv 2010.07611): as global_magnitude, but no layer is
    emptied while others are full.
    """

    method: Literal["lamp"] = "lamp"


class ErkSection(PruningBase):
    """The smallest weights of each layer go, of wide layers a larger share (Erdős–Rényi-Kernel, arXiv 1911.11134)."""

    method: Literal["erk"] = "erk"


class RandomSection(PruningBase):
    """Random weights go: the baseline that any criterion must beat."""

    method: Literal["random"] = "random"


class SynflowSection(PruningBase):
    """The weights go that carry least of the flow through all paths (SynFlow, arXiv 2006.05467), round by round. No
    image is looked at. Made for networks before training; of the example's trained ResNet-20 at 75 %, BatchNorm
    re-estimated on dreams brings back 25.8 % top-1 after it, 84.1 % after global_magnitude.
    """

    method: Literal["synflow"] = "synflow"
    share_per_round: float = Field(default=0.045, gt=0, lt=1)
    """The share of the remaining weights that goes in each round, in (0, 1). 0.045 is the paper's hundred rounds on the
    way to 1 % of the weights; fixed, instead of fit to the sparsity, so that masks of several sparsities nest."""


class ScoredBase(PruningBase):
    """What every pruner is told that looks at images."""

    num_images: int | None = Field(default=None, ge=1)
    """Look at so many of the training dreams at most; none: at all of them."""

    @property
    def looks_at_images(self) -> bool:
        """Yes."""
        return True


class GuidedBase(ScoredBase):
    """What every pruner is told that weighs magnitudes by gradients."""

    gradient_power: float = Field(default=0.25, gt=0, le=1)
    """How much gradients count beside the weights' own magnitudes: scores are weight² times gradient² to this power. 1
    is the criterion as published. The default is what recovered best at 95 % on the example's ResNet-20."""
    normalisation: Literal["none", "lamp"] = "lamp"
    """none: scores are compared across layers as they are, and whole layers may go. lamp: each as its share in what
    is left of its layer, as LAMP does with magnitudes (Eq. 4, arXiv 2010.07611)."""

    @property
    def looks_at_images(self) -> bool:
        """Yes."""
        return True


class TaylorSection(GuidedBase):
    """The weights go that change the loss least, to first order: (gradient times weight)² (Molchanov et al., arXiv
    1906.10771).
    """

    method: Literal["taylor"] = "taylor"
    labels: Literal["targets", "sampled"] = "targets"
    """What the cross-entropy is with. targets: the classes that dreams were made for, or images' labels. sampled: one
    draw from the teacher's softmax for each image."""
    batch_size: int = Field(default=32, ge=1)
    """Images per gradient, whose squares are averaged: part of the score."""


class FisherSection(GuidedBase):
    """The weights go that change the loss least, to second order: the mean over images of gradient², times weight² / 2
    (diagonal Fisher, Theis et al., arXiv 1801.05787). Labels are drawn from the teacher's softmax.
    """

    method: Literal["fisher"] = "fisher"


class TeacherGuidedSection(GuidedBase):
    """A student is trained for a few steps under its teacher, scored by the gradient of alpha * CA-KLD +
    (1 - alpha) * cross-entropy, and pruned at once by one threshold (arXiv 2511.16653).

    The paper's public text leaves alpha, temperature and the exact score open. On the example's ResNet-20 some scores,
    powers and normalisations were compared, and the best are the defaults; alpha, temperature and training were not.
    """

    method: Literal["teacher_guided"] = "teacher_guided"
    alpha: float = Field(default=0.5, ge=0, le=1)
    """The teacher's share in the loss, in [0, 1]: 0 is cross-entropy alone. 1 is the teacher alone, whose gradient is
    zero where the student is the teacher: it needs a student to start from."""
    temperature: float = Field(default=4.0, gt=0)
    """Softens both standardised logits."""
    score: Literal["gradient", "taylor", "fisher"] = "taylor"
    """What is made of gradients. gradient: their magnitude alone. taylor: gradient times weight, squared, batch by
    batch. fisher: the same image by image."""
    labels: Literal["targets", "sampled"] = "targets"
    """What the cross-entropy is with. targets: the classes that dreams were made for, or images' labels. sampled: one
    draw from the teacher's softmax for each image."""
    training_steps: int = Field(default=200, ge=0)
    """Steps of SGD (momentum 0.9) on the same loss before scoring; the step size falls to 0 along a cosine."""
    learning_rate: float = Field(default=0.01, gt=0)
    """The first step size of these."""
    batch_size: int = Field(default=64, ge=1)
    """Images per step of the training, and per gradient, whose squares are averaged."""


class OptimalBrainSection(ScoredBase):
    """The weights go without which the others can best make up for them: Optimal Brain Surgeon in each layer (Optimal
    Brain Compression, arXiv 2208.11580), on dreams. What a layer's outputs then lack counts by how much the teacher's
    answers depend on them.
    """

    method: Literal["optimal_brain"] = "optimal_brain"
    gradient_power: float = Field(default=0.5, ge=0, le=1)
    """What counts for a weight. 1: the effect on the teacher's answers alone. 0: the share in its layer's outputs
    alone, more where its channel has little left. Between: effect to this power, times share to the rest."""
    ridge: float = Field(default=0.01, gt=0)
    """How far to distrust what images say of how inputs go together, in units of the inputs' mean square."""
    normalisation: Literal["none", "lamp"] = "none"
    """none: errors are compared across layers as they are. lamp: each as its share in what is left of its layer."""


ScoredSection = TaylorSection | FisherSection | TeacherGuidedSection | OptimalBrainSection


class SemiStructuredSection(AnyPruning):
    """Of every few neighbouring weights some stay, the largest: 2 of 4 is what kernels for NVIDIA's sparse tensor cores
    take (arXiv 2104.08378); Resprout itself computes with zeros. Neighbours are input channels; layers whose input
    channels do not split into groups, as a first convolution's 3 colours, stay whole and are not counted. Of the others
    exactly 1 - kept / group is gone.
    """

    method: Literal["semi_structured"] = "semi_structured"
    kept: int = Field(default=2, ge=1)
    """How many weights of each group stay; fewer than group."""
    group: int = Field(default=4, ge=2, le=64)
    """How many neighbouring weights are judged together."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_sparsity(cls, fields: Any) -> Any:
        for name in ("sparsity", "min_agreement"):
            if isinstance(fields, Mapping) and name in fields:
                raise RecipeError(
                    f"pruning.{name}: is {fields[name]!r}, and semi_structured has no sparsity to choose",
                    why="kept and group say how much goes: 1 - kept / group of every layer that splits into groups",
                    now=f"leave pruning.{name} out",
                )
        return fields

    @model_validator(mode="after")
    def _removes_something(self) -> SemiStructuredSection:
        if self.kept >= self.group:
            raise RecipeError(
                f"pruning.kept: is {self.kept} of groups of {self.group}",
                why="nothing would be pruned",
                now="set pruning.kept below pruning.group, for example 2 of 4",
            )
        return self

    @property
    def sparsity(self) -> float:
        """What follows from the groups, in (0, 1)."""
        return 1 - self.kept / self.group


class BlockSection(PruningBase):
    """Blocks of neighbouring output and input channels go whole, with their kernels; the smallest of the whole network,
    per weight, first. The sparsity is met to half a block.
    """

    method: Literal["block"] = "block"
    shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (4, 4)
    """Output channels, input channels of a block; at a layer's edges blocks are smaller."""
    norm: Literal["l1", "l2"] = "l1"
    """How blocks are compared: by mean magnitude (l1) or by root mean square (l2)."""
    relative: bool = True
    """Compare in units of what a block's whole layer has. false: as they are; a layer of small weights then loses all
    of its blocks before others lose any (the example's ResNet-20 at 30 %)."""


class StructuredSection(AnyPruning):
    """Whole channels go, those together that layers share: the network gets smaller, and mostly faster, where other
    methods leave zeros. How far, one of channel_ratio, macs_ratio and latency_ratio says. Of layers that exclude names,
    no channel goes that they take or give; outputs of the classifier always stay. Needs torch-pruning.
    """

    method: Literal["structured"] = "structured"
    channel_ratio: float | None = Field(default=None, gt=0, lt=1)
    """The share of channels that may stay, over all groups of layers that share them; in (0, 1)."""
    macs_ratio: float | None = Field(default=None, gt=0, lt=1)
    """The share of the teacher's multiply-accumulates that may stay, in (0, 1): 0.5 halves them."""
    latency_ratio: float | None = Field(default=None, gt=0, lt=1)
    """The share of the teacher's time for a batch that may stay, in (0, 1), measured where pruning runs, in float32: a
    time differs from run to run, and the student with it."""
    latency_batch_size: int = Field(default=1, ge=1)
    """Images per forward pass that is timed for latency_ratio."""
    importance: Literal["magnitude", "taylor"] = "magnitude"
    """Which channels go first. magnitude: those with the smallest weights in all layers that they run through.
    taylor: those with which the teacher's answers to dreams change least, to first order, for the MACs that they
    save."""
    round_to: int = Field(default=8, ge=1)
    """Layers that lose channels keep a multiple of this many, which kernels are fastest with."""

    @property
    def target(self) -> tuple[str, float]:
        """The one that is set: its field, and the share that may stay."""
        ((name, ratio),) = self._targets().items()
        return name, ratio

    @property
    def looks_at_images(self) -> bool:
        """Whether the criterion itself needs dreams."""
        return self.importance == "taylor"

    @model_validator(mode="after")
    def _has_one_target(self) -> StructuredSection:
        given = self._targets()
        if len(given) != 1:
            raise RecipeError(
                f"pruning.method: structured, with {' and '.join(given) or 'no target'}",
                why="it prunes until one target is reached",
                now="set one of channel_ratio, macs_ratio and latency_ratio, for example macs_ratio: 0.5",
            )
        return self

    def _targets(self) -> dict[str, float]:
        named = {name: getattr(self, name) for name in ("channel_ratio", "macs_ratio", "latency_ratio")}
        return {name: ratio for name, ratio in named.items() if ratio is not None}


MaskingSection = (
    GlobalMagnitudeSection
    | LayerMagnitudeSection
    | LampSection
    | ErkSection
    | RandomSection
    | SynflowSection
    | TaylorSection
    | FisherSection
    | TeacherGuidedSection
    | OptimalBrainSection
    | SemiStructuredSection
    | BlockSection
)
"""What sets single weights to zero."""

PruningSection = Annotated[
    MaskingSection | StructuredSection,
    Field(discriminator="method"),
    BeforeValidator(method_or("optimal_brain")),
]


class SensitivitySection(Section):
    """A scan of how much each layer alone can spare. It is no part of a run: `resprout scan` and the component
    scan-sensitivity take it.
    """

    sparsities: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.5, 0.75, 0.9, 0.95, 0.98), min_length=1, max_length=16
    )
    """The shares of a layer's weights to remove, the smallest ones first; one weight stays in any case."""
    repair_dreams: int = Field(default=256, ge=0)
    """On how many dreams to re-estimate BatchNorm after each pruning, which foretells better what recovery leaves; 0:
    leave the teacher's statistics."""
    exclude: tuple[str, ...] = ()
    """Globs over parameter names that are not looked at, for example ["fc.*"]."""

    @field_validator("sparsities")
    @classmethod
    def _ascending(cls, sparsities: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(sparsities)))
