"""A recipe: what to do with which teacher, as one frozen section per stage.

Every field's docstring is what `resprout recipe explain SECTION.FIELD` prints. A section that offers several
methods is a union discriminated on `method`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from resprout.errors import RecipeError


class Section(BaseModel):
    """What all sections share: frozen, strict about names, documented by attribute docstrings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _method_or(default: str) -> Callable[[Any], Any]:
    """Fill in the method of a section that names none, so that `pruning: {sparsity: 0.9}` is enough."""

    def fill_in(fields: Any) -> Any:
        return {"method": default, **fields} if isinstance(fields, Mapping) else fields

    return fill_in


class InputSection(Section):
    """The images that the teacher expects; needed only where its source does not say."""

    shape: tuple[int, int, int]
    """Channels, height, width; for example [3, 32, 32]."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Per channel, in [0, 1] pixel space: normalised = (pixel - mean) / std. Default: ImageNet's."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Per channel, above 0, in [0, 1] pixel space. Default: ImageNet's."""


class TeacherSection(Section):
    """Where the trained network comes from."""

    source: str
    """A folder of ours, a .safetensors or weights-only .pt file, torchvision://NAME?weights=W, timm://NAME,
    hf://REPO, s3://BUCKET/KEY (a file or a folder of ours), or https://… (with sha256)."""
    architecture: str | None = None
    """What to build for a bare weights file: a torchvision, timm or CIFAR name, or your own package.module:function."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the architecture's constructor."""
    num_classes: int | None = Field(default=None, ge=2)
    """The number of classes, where the source does not say."""
    class_names: tuple[str, ...] | None = None
    """One name per class, in the order of the logits; default: "0", "1", …"""
    input: InputSection | None = None
    """The images it expects, where the source does not say."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """The weights file's sha256; required for https://, checked wherever given."""
    allow_custom_code: bool = False
    """Allow `architecture` to name your own package.module:function, which runs with your rights."""


class DeepInversionSection(Section):
    """Dreams from BatchNorm statistics (DeepInversion, arXiv 1912.08795), in the fast engine."""

    method: Literal["deep_inversion"] = "deep_inversion"
    num_images: int = Field(default=1024, ge=1)
    """Dreams to train on."""
    num_held_out: int = Field(default=128, ge=0)
    """Further dreams that are never trained on; agreement with the teacher is judged on them."""
    group_size: int = Field(default=128, ge=2)
    """Images synthesized together; BatchNorm statistics are matched over a group. Part of the result, unlike the number
    of workers."""
    iterations: int = Field(default=50, ge=1)
    """Optimiser steps per group; inputs much larger than CIFAR's may want more: watch the loss curves in the report."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Adam's peak step size, in normalised input space; a cosine brings it to 0."""
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
    """Weight of the anisotropic total variation, summed over an image, averaged over the group."""
    l2_weight: float = Field(default=0.0, ge=0)
    """Weight of an image's mean square."""
    pyramid: bool = True
    """Optimise images as a sum of resolutions instead of single pixels: dreams get the spectrum of photographs."""
    jitter: int = Field(default=2, ge=0)
    """Roll images by up to this many pixels each way, anew in each iteration."""
    flip: bool = True
    """Mirror the images in a random half of the iterations."""
    student_weight: float = Field(default=0.0, ge=0)
    """Weight of the student-aware term (Adaptive DeepInversion): favour images on which student and teacher
    disagree."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the network runs in; losses and statistics are float32 always. auto: bfloat16 where the machine has it."""


class PaperSynthesisSection(Section):
    """The released recipe of arXiv 2511.20702: batches of 32, 200 iterations, Adam 0.05, entropy + 10 BN + 1e-5 TV,
    clamp ±3, float32.
    """

    method: Literal["paper"] = "paper"
    num_images: int = Field(default=1024, ge=1)
    """Dreams to train on."""
    num_held_out: int = Field(default=128, ge=0)
    """Further dreams that are never trained on; agreement with the teacher is judged on them."""


SynthesisSection = Annotated[
    DeepInversionSection | PaperSynthesisSection,
    Field(discriminator="method"),
    BeforeValidator(_method_or("deep_inversion")),
]


class PruningBase(Section):
    """What every pruner is told."""

    sparsity: float = Field(default=0.75, gt=0, lt=1)
    """The share of maskable weights to remove, in (0, 1)."""
    exclude: tuple[str, ...] = ()
    """Globs over parameter names whose weights all stay, for example ["conv1.weight", "fc.*"]."""


class GlobalMagnitudeSection(PruningBase):
    """The smallest weights of the whole network go (global L1)."""

    method: Literal["global_magnitude"] = "global_magnitude"


class LayerMagnitudeSection(PruningBase):
    """The smallest weights of each layer go: every layer ends at the same sparsity."""

    method: Literal["layer_magnitude"] = "layer_magnitude"


class RandomSection(PruningBase):
    """Random weights go: the baseline that any criterion must beat."""

    method: Literal["random"] = "random"


PruningSection = Annotated[
    GlobalMagnitudeSection | LayerMagnitudeSection | RandomSection,
    Field(discriminator="method"),
    BeforeValidator(_method_or("global_magnitude")),
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
    """The peak step size. none: 0.001 from reconstructed, 0.003 otherwise."""
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    """one_cycle: linear warm-up, then a cosine to 0. constant: the peak throughout, after the warm-up."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """The share of all steps spent warming up, in [0, 1)."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled for AdamW, L2 for SGD."""
    temperature: float = Field(default=4.0, gt=0)
    """Softens both logits; KL is scaled by its square (Hinton et al., arXiv 1503.02531)."""
    feature_weight: float = Field(default=5.0, ge=0)
    """Weight of the per-block feature matching; 0 leaves KL alone."""
    start: Literal["auto", "reconstructed", "repaired", "pruned"] = "auto"
    """reconstructed: from layers solved on dreams, as method: reconstruction does. repaired: from BatchNorm
    re-estimated on dreams. pruned: from the student as it came. auto: reconstructed where the repaired student still
    answers as the teacher on half of the held-out dreams and their blends, since little needs mending then; repaired
    where it does not."""
    keep_batchnorm_frozen: bool | None = None
    """Train with running statistics instead of a batch's own, and leave them as they are. none: yes from reconstructed,
    whose statistics are the teacher's; no otherwise."""
    jitter: int = Field(default=4, ge=0)
    """Augmentation: shift each image by up to this many pixels each way (zero padding)."""
    flip: bool = True
    """Augmentation: mirror each image with probability 1/2."""
    mixup: float = Field(default=1.0, ge=0)
    """Augmentation: blend pairs of dreams with a Beta(mixup, mixup) share; 0 is off."""
    keep: Literal["best", "last"] = "best"
    """Which student to keep: the start or the epoch with the lowest KL on held-out dreams and their blends, or the last
    epoch."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the networks run in; losses are float32 always. auto: bfloat16 where the machine has it."""


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
    BeforeValidator(_method_or("distillation")),
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


class GateSection(Section):
    """What a result must keep: a run whose result breaks one of these limits fails, before it is published. One that
    cannot be told, for lack of a test set, counts as broken; one that is not set is not looked at.
    """

    max_top1_drop_points: float | None = Field(default=None, ge=0)
    """How many points of top-1 accuracy the recovered network may be below its teacher, on the labelled test set."""
    min_top1: float | None = Field(default=None, ge=0, le=1)
    """Its least top-1 accuracy on the labelled test set, in [0, 1]."""
    min_agreement: float | None = Field(default=None, ge=0, le=1)
    """The least share of held-out dreams and their blends on which it agrees with its teacher, in [0, 1]."""
    min_sparsity: float | None = Field(default=None, ge=0, lt=1)
    """The least share of maskable weights that must be gone, in [0, 1)."""


class PublishingSection(Section):
    """Where the recovered model, its metrics and its report are published, if anywhere."""

    to: str | None = Field(default=None, pattern=r"^s3://[^/]+(/.*)?$")
    """s3://BUCKET/PREFIX; none: nowhere."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What the model is called there; none: as the recipe is."""
    version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What is published is never changed under its version. none: the beginning of the model's digest, so that the same
    model is the same version."""


_QUANTITY = r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti)$"


def _pinned(image: str) -> str:
    """Refuse an image that may be another one tomorrow: KFP's cache would not notice."""
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag or tag == "latest":
        raise ValueError("must end in a digest (@sha256:…) or in a tag other than latest")
    return image


Image = Annotated[str, AfterValidator(_pinned)]


class PlacementSection(Section):
    """Where stages run on a cluster, and how large they may be. It changes no result. `resprout run` heeds num_shards
    and checkpoints, and in containers the images and shared_memory.
    """

    num_shards: int = Field(default=1, ge=1, le=256)
    """How many tasks share the synthesis of the dreams, each with a GPU of its own. On one machine they follow each
    other."""
    gpu_type: str = Field(default="nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """The resource that synthesis and recovery ask for, as the cluster calls it; a MIG slice is
    nvidia.com/mig-1g.10gb."""
    gpus: int = Field(default=1, ge=0, le=1)
    """0: synthesis and recovery ask for no GPU and compute on the processor."""
    gpu_memory_gib: float | None = Field(default=None, gt=0)
    """Only GPUs with at least this much memory, by the label nvidia.com/gpu.memory that NVIDIA's feature discovery
    sets."""
    gpu_node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a GPU stage's node must have, as {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}."""
    gpu_tolerations: tuple[dict[str, str | int], ...] = (
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    )
    """Taints that GPU stages tolerate, as Kubernetes writes them."""
    gpu_stage_memory: str = Field(default="16Gi", pattern=_QUANTITY)
    """Main memory of a GPU stage."""
    gpu_stage_cpus: str = Field(default="4", pattern=r"^\d+(\.\d+)?m?$")
    """Processor cores that a GPU stage asks for."""
    shared_memory: str = Field(default="2Gi", pattern=_QUANTITY)
    """Size of a GPU stage's /dev/shm; counts as its main memory."""
    cpu_stage_memory: str = Field(default="8Gi", pattern=_QUANTITY)
    """Main memory of the other stages."""
    cpu_stage_cpus: str = Field(default="2", pattern=r"^\d+(\.\d+)?m?$")
    """Processor cores that the other stages ask for."""
    evaluate_on_gpu: bool = False
    """Whether evaluation asks for a GPU too."""
    retries: int = Field(default=2, ge=0, le=10)
    """How often a GPU stage that failed is tried again, after twice the last pause; it goes on from its checkpoints."""
    retry_pause_seconds: int = Field(default=30, ge=0)
    """The first of these pauses."""
    timeout_seconds: int = Field(default=86_400, ge=60)
    """How long a GPU stage may take."""
    checkpoints: str | None = Field(default=None, pattern=r"^s3://[^/]+(/.*)?$")
    """s3://BUCKET/PREFIX, where synthesis and recovery keep what they have done, so that they go on there when they are
    started again on another machine. none: on a cluster nowhere, with `resprout run` in the run's folder."""
    cpu_image: Image | None = None
    """The image of stages without a GPU, with a digest or a tag other than latest; none: Resprout's of this version."""
    gpu_image: Image | None = None
    """The image of stages with a GPU, likewise."""
    storage_secret: str = "resprout-storage"  # noqa: S105 - a name
    """The secret with which teachers are fetched and models published: files endpoint, accesskey, secretkey, and where
    needed region, sessiontoken, ca.crt."""
    checkpoint_secret: str = "resprout-checkpoints"  # noqa: S105
    """The secret with which synthesis and recovery keep their checkpoints; it need reach no bucket but theirs."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets of the registry that the images come from."""


class Recipe(Section):
    """One compression, from a teacher to a recovered, evaluated student."""

    name: str = Field(default="unnamed", pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    """What runs are called; default: the recipe file's name."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """The one seed that all randomness comes from."""
    teacher: TeacherSection
    synthesis: SynthesisSection = DeepInversionSection()
    pruning: PruningSection = GlobalMagnitudeSection()
    recovery: RecoverySection = DistillationSection()
    evaluation: EvaluationSection = EvaluationSection()
    gate: GateSection = GateSection()
    publishing: PublishingSection = PublishingSection()
    placement: PlacementSection = PlacementSection()


SECTIONS: dict[str, Any] = {
    "teacher": TeacherSection,
    "synthesis": SynthesisSection,
    "pruning": PruningSection,
    "recovery": RecoverySection,
    "evaluation": EvaluationSection,
    "gate": GateSection,
    "publishing": PublishingSection,
    "placement": PlacementSection,
}


def load(path: str | Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        RecipeError: no such file, not YAML, or a field that is unknown, missing or out of range.
    """
    path = Path(path)
    try:
        fields = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise RecipeError(
            f"there is no recipe {path}", now="`resprout recipe list` shows those that come with Resprout"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is not YAML: {error}") from None
    if not isinstance(fields, dict):
        raise RecipeError(f"recipe {path} is not a mapping of sections", now="start from one in recipes/")
    fields.setdefault("name", path.stem.lower())
    recipe: Recipe = validate(Recipe, fields, f"recipe {path.name}")
    return recipe


def validate(kind: Any, fields: Mapping[str, Any], where: str) -> Any:
    """`fields` as a section; `where` starts the message of a refusal.

    Every problem gets a line: the dotted field, what is wrong with it, the value; an unknown field gets the nearest
    known one.

    Raises:
        RecipeError: with all the problems at once.
    """
    if where in SECTIONS:
        where = f"recipe section {where}"
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        problems = [_problem(detail, kind) for detail in error.errors()]
        raise RecipeError("\n".join(f"{where}, {problem}" for problem in problems)) from None


def section(name: str, fields: Mapping[str, Any]) -> Any:
    """One stage's section from a plain dict, as a component receives it (numbers may be floats)."""
    return validate(SECTIONS[name], _with_whole_numbers(fields), name)


def _with_whole_numbers(value: Any) -> Any:
    # KFP hands ints inside dicts back as floats; fields become floats again where they are, free-form arguments do not
    if isinstance(value, Mapping):
        return {name: _with_whole_numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _problem(detail: Mapping[str, Any], kind: Any) -> str:
    methods = {"deep_inversion", "paper", "global_magnitude", "layer_magnitude", "random", "distillation"}
    location = [str(part) for part in detail["loc"] if part not in methods]
    field_name = ".".join(location) or "the whole"
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(location[-1], sorted(_field_names(kind)), n=1)
        return f"{field_name}: no such field" + (f"; did you mean {near[0]}?" if near else "")
    if detail["type"] == "missing":
        return f"{field_name}: is required"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{field_name}: {message}, got {detail['input']!r}"


def _field_names(kind: Any) -> set[str]:
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return set().union(*(_field_names(part) for part in get_args(kind)))
    inner = (_field_names(information.annotation) for information in kind.model_fields.values())
    return set(kind.model_fields).union(*inner)
