"""Where stages run on a cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from resprout.errors import RecipeError
from resprout.recipe.base import Section

_QUANTITY = r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti)$"


def _pinned(image: str) -> str:
    """Refuse an image that may be another one tomorrow: KFP's cache would not notice."""
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag or tag == "latest":
        raise ValueError("must end in a digest (@sha256:…) or in a tag other than latest")
    return image


Image = Annotated[str, AfterValidator(_pinned)]


# With more, KFP loses sight of its own run: Argo compresses a workflow's state above 1 MiB (docs/gpu-nodes.md).
MAX_SHARDS = 8


class PlacementSection(Section):
    """Where stages run on a cluster, and how large they may be. It changes no result. `resprout run` heeds num_shards
    and checkpoints, and in containers the images, gpus, and what a stage may take of memory. Images and secrets choose
    code, and who gets credentials: `--set` says them, and a recipe's file only with `--allow-images`.
    """

    num_shards: int = Field(default=1, ge=1)
    """How many pods share the synthesis of the dreams. On one machine they follow each other. There may be 8 at most,
    since Kubeflow Pipelines loses sight of larger runs; for more GPUs than that, set gpus."""
    gpu_type: str = Field(default="nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """The resource that synthesis, pruning and recovery ask for, as the cluster calls it; a MIG slice is
    nvidia.com/mig-1g.10gb."""
    gpus: int = Field(default=1, ge=0, le=16)
    """How many GPUs each pod of synthesis asks for, and uses; pruning and recovery ask for one. 0: nobody asks for any,
    and stages compute on the processor."""
    gpu_memory_gib: float | None = Field(default=None, gt=0)
    """Only GPUs with at least this much memory, by the label nvidia.com/gpu.memory that NVIDIA's feature discovery
    sets."""
    gpu_node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a GPU stage's node must have, as {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}."""
    gpu_tolerations: tuple[dict[str, str | int], ...] = (
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    )
    """Taints that GPU stages tolerate, as Kubernetes writes them."""
    gpu_stage_memory: str = Field(default="10Gi", pattern=_QUANTITY)
    """Main memory of a GPU stage. The default, with 3 cores, fits a node of 4 cores and 16 GiB of any cloud."""
    gpu_stage_cpus: str = Field(default="3", pattern=r"^\d+(\.\d+)?m?$")
    """Processor cores that a GPU stage asks for."""
    checkpoints: str | None = Field(default=None, pattern=r"^(s3://[^/]+(/.*)?|/.+)$")
    """s3://BUCKET/PREFIX, where synthesis, pruning and recovery keep what they have done, so that they go on there when
    they are started again on another machine; with `resprout run` also a folder, from /. none: on a cluster nowhere,
    with `resprout run` in the run's folder."""
    shared_memory: str = Field(default="2Gi", pattern=_QUANTITY)
    """Size of a GPU stage's /dev/shm; counts as its main memory."""
    cpu_stage_memory: str = Field(default="4Gi", pattern=_QUANTITY)
    """Main memory of the other stages; plan, gate and publish ask for less."""
    cpu_stage_cpus: str = Field(default="1", pattern=r"^\d+(\.\d+)?m?$")
    """Processor cores that the other stages ask for; plan, gate and publish ask for less."""
    use_gpu_nodes: bool = False
    """Where the other stages run. false: on a node without a GPU, if one has room. true: on a node with a GPU, whose
    taints in gpu_tolerations they tolerate then: for clusters in which every node has one."""
    evaluate_on_gpu: bool = False
    """Whether evaluation asks for a GPU too."""
    queue: str | None = Field(default=None, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """The LocalQueue of Kueue that stages wait in; none: the scheduler alone decides."""
    retries: int = Field(default=2, ge=0, le=10)
    """How often a stage is tried again whose pod was deleted, or lost with its node, after twice the last pause; one
    with checkpoints goes on from them. As Kubeflow Pipelines sets Argo up, one that failed by itself is not tried
    again, nor one whose node ran out of memory or disk."""
    retry_pause_seconds: int = Field(default=30, ge=0)
    """The first of these pauses."""
    timeout_seconds: int = Field(default=86_400, ge=60)
    """How long each try of a stage may take."""
    cpu_image: Image | None = None
    """The image of stages without a GPU, with a digest or a tag other than latest; none: Resprout's of this version."""
    gpu_image: Image | None = None
    """The image of stages with a GPU, likewise."""
    storage_secret: str = "resprout-storage"  # noqa: S105 - a name
    """The secret with which addresses are looked up, and teachers and images fetched: files endpoint, accesskey,
    secretkey, and where needed region, sessiontoken, ca.crt. It need write nowhere."""
    publishing_secret: str = "resprout-publishing"  # noqa: S105
    """The secret with which models are published; it need reach nothing but what is published. The stages that read
    what strangers wrote do not have it."""
    checkpoint_secret: str = "resprout-checkpoints"  # noqa: S105
    """The secret with which stages keep their checkpoints; it need reach no bucket but theirs. Its file checkpointkey
    holds what seals them."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets of the registry that the images come from. A cluster that was set up with k8s/ lets a run name the
    secrets that k8s/admission.yaml lists and no others; of these, resprout-registry."""

    @field_validator("num_shards")
    @classmethod
    def _is_seen_to_its_end(cls, value: int) -> int:
        if value > MAX_SHARDS:
            raise RecipeError(
                f"placement.num_shards: is {value}, and a run may have {MAX_SHARDS}",
                why="Kubeflow Pipelines loses sight of larger runs, and cannot retry them",
                now=f"set placement.gpus: each of {MAX_SHARDS} pods uses every GPU that it has",
            )
        return value


AT_SUBMIT = frozenset(
    {
        "num_shards",
        "gpu_type",
        "gpus",
        "gpu_memory_gib",
        "gpu_node_selector",
        "gpu_tolerations",
        "gpu_stage_memory",
        "gpu_stage_cpus",
        "checkpoints",
    }
)
"""What may be said for each run; the rest is compiled into the pipeline."""

CALLERS = ("cpu_image", "gpu_image", "storage_secret", "publishing_secret", "checkpoint_secret", "image_pull_secrets")
"""What chooses the code that runs, and the credentials that it gets: whoever starts a run says it, and no recipe."""
