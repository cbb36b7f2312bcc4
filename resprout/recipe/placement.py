"""Where stages run on a cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from resprout.recipe.base import Section

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
