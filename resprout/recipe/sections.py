"""What each stage can be told, one frozen section per stage, and per method where a stage has several."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from resprout.arguments import problem_of as problem_of_arguments
from resprout.errors import RecipeError
from resprout.normalisation import problem_of
from resprout.recipe.base import Section, method_or
from resprout.wording import problem_of_name


class InputSection(Section):
    """The images that the teacher expects; needed only where its source does not say."""

    shape: tuple[int, int, int]
    """Channels, height, width; for example [3, 32, 32]."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Per channel, in [0, 1] pixel space: normalised = (pixel - mean) / std. Default: ImageNet's."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Per channel, above 0, in [0, 1] pixel space; 1/255 where the network takes pixels in 0..255. Default:
    ImageNet's."""

    @field_validator("shape", mode="before")
    @classmethod
    def _has_three_sizes(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) == 3:
            return value
        raise RecipeError(
            f"teacher.input.shape: is {value}, not channels, height, width", now="for example shape: [3, 32, 32]"
        )

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _is_per_channel(cls, value: Any, field: ValidationInfo) -> Any:
        if not isinstance(value, int | float):
            return value
        raise RecipeError(
            f"teacher.input.{field.field_name}: is {value}, one number",
            why="each channel is normalised by its own",
            now=f"for three channels {field.field_name}: [{value}, {value}, {value}]",
        )

    @model_validator(mode="after")
    def _can_be_what_was_meant(self) -> InputSection:
        if problem := problem_of(self.shape, self.mean, self.std):
            raise RecipeError(f"teacher.input: {problem.what}", why=problem.why, now=problem.now)
        return self


class TeacherSection(Section):
    """Where the trained network comes from."""

    source: str
    """A folder of ours or one that save_pretrained wrote, a .safetensors or weights-only .pt file,
    torchvision://NAME?weights=W, timm://NAME, hf://REPO, s3://BUCKET/KEY (a file or a folder), or https://…
    (with sha256). A file may hold more than the weights: they are found under any keys and any prefix of their names;
    of several sets the averaged one is taken."""
    architecture: str | None = None
    """What to build for a bare weights file: a torchvision, timm or CIFAR name, transformers:CLASS, or your own
    package.module:function."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the architecture's constructor: numbers, true or false, words, and lists of these."""
    num_classes: int | None = Field(default=None, ge=2)
    """The number of classes, where the source does not say."""
    class_names: tuple[str, ...] | None = None
    """One name per class, in the order of the logits. Class folders are matched to them. none: the source's own names;
    where it has none, folders count in sorted order, as in torchvision's ImageFolder."""
    input: InputSection | None = None
    """The images it expects, where the source does not say."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """The weights file's sha256; required for https://, checked wherever given. Of a folder of ours better its digest,
    which `resprout models show` prints: that names the input, the class names and the architecture too."""
    allow_custom_code: bool = False
    """Allow `architecture` to name your own package.module:function, which runs with your rights."""

    @field_validator("arguments")
    @classmethod
    def _are_plain(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if problem := problem_of_arguments(arguments):
            name, what = problem
            raise RecipeError(
                f"teacher.arguments.{name}: {what}",
                why="a recipe is data: what it says of a network must not become code or open a file",
                now="leave it out, and let teacher.source name the weights",
            )
        return arguments

    @field_validator("class_names")
    @classmethod
    def _tells_the_classes_apart(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        seen: dict[str, int] = {}
        for label, name in enumerate(names or ()):
            if problem := problem_of_name(name):
                raise RecipeError(f"teacher.class_names: name {label} {problem}", now="give each class a plain name")
            first = seen.setdefault(unicodedata.normalize("NFC", name), label)
            if first != label:
                raise RecipeError(
                    f"teacher.class_names: {name!r} is there twice, as {first} and {label}",
                    why="class folders are matched to logits by name",
                    now="give each class a name of its own",
                )
        return names


class DeepInversionSection(Section):
    """Dreams from BatchNorm statistics (DeepInversion, arXiv 1912.08795), in the fast engine."""

    method: Literal["deep_inversion"] = "deep_inversion"
    num_images: int = Field(default=1024, ge=2)
    """Dreams to train on."""
    num_held_out: int = Field(default=128, ge=0)
    """Further dreams that are never trained on; agreement with the teacher is judged on them."""
    group_size: int = Field(default=128, ge=2)
    """Images synthesized together; BatchNorm statistics are matched over a group. Part of the result, unlike the number
    of workers."""
    iterations: int = Field(default=50, ge=1)
    """Optimiser steps per group; inputs much larger than CIFAR's may want more: watch the loss curves in the report."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Adam's peak step size, in quarters of the way from black to white, whatever the teacher's normalisation; a cosine
    brings it to 0."""
    target_loss: Literal["cross_entropy", "entropy"] = "cross_entropy"
    """Pull each dream to its class (cross_entropy), or to any confident class (entropy)."""
    target_weight: float = Field(default=0.03, ge=0)
    """Weight of the target loss. A little is enough for dreams of every class; more makes the teacher surer of them
    than it is of photographs, and students learn less from them."""
    batch_norm_distance: Literal["absolute", "normalised"] = "normalised"
    """How statistics are compared: absolute L2 per layer (Eq. 4, arXiv 2511.20702), or in units of the teacher's
    standard deviation, averaged per layer."""
    batch_norm_weight: float = Field(default=10.0, ge=0)
    """Weight of the BatchNorm distance."""
    first_layer_multiplier: float = Field(default=1.0, gt=0)
    """Extra weight of the first BatchNorm layer, which sees colours and edges."""
    total_variation_weight: float = Field(default=1e-4, ge=0)
    """Weight of the anisotropic total variation, summed over an image, averaged over the group; in the unit of
    learning_rate."""
    l2_weight: float = Field(default=0.0, ge=0)
    """Weight of an image's mean square distance from mid-grey, in the unit of learning_rate."""
    pyramid: bool = True
    """Optimise images as a sum of resolutions instead of single pixels: dreams get the spectrum of photographs."""
    coarsest: int = Field(default=1, ge=1)
    """Where the pyramid ends: sides are halved until the shorter one is at most this many pixels. At 1, an image can
    become brighter or darker as a whole, and dreams differ in that. Without the pyramid it has no meaning."""
    jitter: int = Field(default=2, ge=0)
    """Roll images by up to this many pixels each way, anew in each iteration."""
    flip: bool = True
    """Mirror the images in a random half of the iterations."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the network runs in; losses and statistics are float32 always. auto: bfloat16 where the machine has it."""


class PaperSynthesisSection(Section):
    """The released recipe of arXiv 2511.20702: batches of 32, 200 iterations, Adam 0.05, entropy + 10 BN + 1e-5 TV,
    clamp ±3, float32.
    """

    method: Literal["paper"] = "paper"
    num_images: int = Field(default=1024, ge=2)
    """Dreams to train on."""
    num_held_out: int = Field(default=128, ge=0)
    """Further dreams that are never trained on; agreement with the teacher is judged on them."""

    @property
    def group_size(self) -> int:
        """Images synthesized together."""
        return 32


class ImagesSection(Section):
    """Your own labelled images take the place of dreams, and nothing is synthesized. This is not data-free: it is the
    setting of arXiv 2511.16653, and the ceiling to hold dreams against.
    """

    method: Literal["images"] = "images"
    data: str
    """Where they are, as for evaluation.data: a folder with one folder of images per class, our packed .safetensors,
    or s3://BUCKET/KEY of either. It must not be what the result is evaluated on."""
    num_images: int = Field(default=1024, ge=2)
    """Images to train on: drawn by the seed, as many of each class as of any other, as far as they go."""
    num_held_out: int = Field(default=128, ge=0)
    """Further images that are never trained on; agreement with the teacher is judged on them."""


SynthesisSection = Annotated[
    DeepInversionSection | PaperSynthesisSection | ImagesSection,
    Field(discriminator="method"),
    BeforeValidator(method_or("deep_inversion")),
]


class DistillationSection(Section):
    """The student repaired on dreams without training, then the teacher distilled into it on dreams."""

    method: Literal["distillation"] = "distillation"
    epochs: int = Field(default=40, ge=1)
    """Passes over the dreams."""
    batch_size: int = Field(default=64, ge=2)
    """Dreams per optimiser step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with momentum 0.9."""
    learning_rate: float | None = Field(default=None, gt=0)
    """The peak step size; smaller for weights that read an image in 0..255. none: 0.001 from reconstructed, 0.003
    otherwise."""
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    """one_cycle: linear warm-up, then a cosine to 0. constant: the peak throughout, after the warm-up."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """The share of all steps spent warming up, in [0, 1)."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled for AdamW, L2 for SGD."""
    temperature: float = Field(default=16.0, gt=0)
    """Softens both logits; KL is scaled by its square (Hinton et al., arXiv 1503.02531). The higher, the more it asks
    for the teacher's logits themselves, up to a constant, and not only for its ranking."""
    distillation_weight: float = Field(default=1.0, ge=0)
    """Weight of the KL from the teacher's answers."""
    feature_weight: float = Field(default=5.0, ge=0)
    """Weight of the per-block feature matching; 0 leaves it out."""
    target_weight: float = Field(default=0.0, ge=0)
    """Weight of the cross-entropy with the classes that the dreams are for, blended as the images are. With your own
    labelled images in their place (synthesis.method: images), 1, and 0 for the two weights above, is retraining without
    a teacher: start from repaired or pruned then, since reconstructed solves for the teacher's outputs."""
    start: Literal["auto", "reconstructed", "repaired", "pruned"] = "auto"
    """reconstructed: from layers solved on dreams, as method: reconstruction does. repaired: from BatchNorm
    re-estimated on dreams. pruned: from the student as it came. auto: reconstructed where the repaired student still
    answers as the teacher on half of the held-out dreams and their blends, and solved layers do on 0.7 of them, since
    little needs mending then; repaired where they do not. Of several rounds the first looks ahead: where all weights
    could go at once and auto would choose reconstructed, layers are solved in every round to give what they gave before
    it (pruned, with a small step, where they answer 0.8 as the teacher); elsewhere each round is repaired."""
    keep_batchnorm_frozen: bool | None = None
    """Train with running statistics instead of a batch's own, and leave them as they are. none: yes from reconstructed,
    whose statistics are the teacher's; no otherwise."""
    jitter: int = Field(default=4, ge=0)
    """Augmentation: shift each image by up to this many pixels each way (zero padding)."""
    flip: bool = True
    """Augmentation: mirror each image with probability 1/2."""
    mixup: float = Field(default=1.0, ge=0)
    """Augmentation: blend pairs of dreams with a Beta(mixup, mixup) share; 0 is off."""
    zoom: float = Field(default=1.3, ge=1, le=4)
    """Augmentation: stretch each side of an image by a factor from 1/zoom to zoom; 1 is off."""
    rotation: float = Field(default=10.0, ge=0, le=180)
    """Augmentation: turn each image by up to this many degrees each way."""
    cutmix: float = Field(default=0.5, ge=0, le=1)
    """Augmentation: in this share of batches, paste a box of another dream into each in place of blending."""
    keep: Literal["best", "last"] = "best"
    """Which student to keep. best: of the start, the epochs, the student as it was pruned and that with BatchNorm
    repaired, the one with the lowest KL on held-out dreams and their blends; where none are held out, the last epoch.
    last: the last epoch. An epoch that ends with a loss that is no number ends the training, and is not kept."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the networks run in; losses are float32 always. auto: bfloat16 where the machine has it."""

    @model_validator(mode="after")
    def _learns_from_something(self) -> DistillationSection:
        if self.distillation_weight == self.feature_weight == self.target_weight == 0:
            raise RecipeError(
                "recovery: distillation_weight, feature_weight and target_weight are all 0",
                why="a student that minimises nothing learns nothing",
                now="give one a weight, or leave training out with method: reconstruction",
            )
        return self


class ReconstructionSection(Section):
    """No training: layer by layer, the remaining weights are solved to give the teacher's outputs on dreams."""

    method: Literal["reconstruction"] = "reconstruction"
    ridge: float = Field(default=1e-3, gt=0)
    """Pull towards the teacher's weights, in units of the layer inputs' mean square."""


class PaperRecoverySection(Section):
    """The recipe of arXiv 2511.20702: BatchNorm frozen, KL at temperature 3, SGD 0.001 momentum 0.9, 15 epochs,
    batches of 32.
    """

    method: Literal["paper"] = "paper"


RecoverySection = Annotated[
    DistillationSection | ReconstructionSection | PaperRecoverySection,
    Field(discriminator="method"),
    BeforeValidator(method_or("distillation")),
]


class EvaluationSection(Section):
    """What the networks are judged on, besides held-out dreams."""

    data: str | None = None
    """A labelled test set: a folder with one folder of images per class, or our packed .safetensors; none: dreams
    alone."""
    max_images: int | None = Field(default=None, ge=1)
    """Judge on this many images, evenly spread over the set; none: all."""
    batch_size: int = Field(default=250, ge=1)
    """Images per forward pass; changes speed and memory, never a result."""
    measure_latency: bool = False
    """Time the recovered network against its teacher where evaluation runs (on a GPU with placement.evaluate_on_gpu),
    in float32: the median of the ratios of alternating runs. A mask makes no dense kernel faster, so about 1 is what
    to expect of it. Off by default, because a time differs from run to run, and the evaluation's digest with it."""
    latency_batch_size: int = Field(default=1, ge=1)
    """Images per forward pass that is timed."""


class GateSection(Section):
    """What a result must keep: a run whose result breaks one of these limits fails, before it is published. One that
    cannot be told, for lack of a test set or of a measured latency, counts as broken; one that is not set is not
    looked at.
    """

    max_top1_drop_points: float | None = Field(default=None, ge=0)
    """How many points of top-1 accuracy the recovered network may be below its teacher, on the labelled test set. It
    cannot be told where the teacher itself is no better than chance there."""
    min_top1: float | None = Field(default=None, ge=0, le=1)
    """Its least top-1 accuracy on the labelled test set, in [0, 1]."""
    min_agreement: float | None = Field(default=None, ge=0, le=1)
    """The least share of held-out dreams and their blends on which it agrees with its teacher, in [0, 1]."""
    min_sparsity: float | None = Field(default=None, ge=0, lt=1)
    """The least share of maskable weights that must be gone, as zeros or with their channels, in [0, 1)."""
    max_size_mib: float | None = Field(default=None, gt=0)
    """How large the recovered model's folder may be, in MiB, as it is stored and published. Tensors keep their shape
    under a mask, so that sparsity hardly changes it: it holds a build to the network it agreed on."""
    max_compressed_size_mib: float | None = Field(default=None, gt=0)
    """How large its files may be when each is compressed with bzip2, in MiB: what a compressed copy takes, of which
    zeros are hardly a part."""
    max_latency_ratio: float | None = Field(default=None, gt=0)
    """How long the recovered network may take for a batch, in units of its teacher's time on the same machine: 1 is as
    long. Needs evaluation.measure_latency."""


class PublishingSection(Section):
    """Where the recovered model, its metrics and its report are published, if anywhere."""

    to: str | None = Field(default=None, pattern=r"^s3://[^/]+(/.*)?$")
    """s3://BUCKET/PREFIX; none: nowhere."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What the model is called there; none: as the recipe is."""
    version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What is published is never changed under its version. none: the beginning of the model's digest, so that the same
    model is the same version."""
