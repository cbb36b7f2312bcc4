"""Where stages run on a cluster: GPUs, nodes, memory, secrets, retries; applied in one place.

What may be changed when a run is submitted comes as pipeline parameters; the rest is compiled in from the recipe's
placement section. Locally, KFP ignores all of it but the retries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components._image import CPU_IMAGE, GPU_IMAGE
from resprout.recipe import PlacementSection

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

SECRETS_FOLDER = "/var/run/secrets/resprout-storage"
GPU_NODE_LABEL = "nvidia.com/gpu.present"
GPU_MEMORY_LABEL = "nvidia.com/gpu.memory"


@dataclass(frozen=True)
class OnGpu:
    """A GPU stage's placement; each field is a pipeline parameter (a KFP channel) or its value."""

    gpu_image: Any
    gpu_type: Any
    gpu_count: Any
    gpu_stage_memory: Any
    gpu_node_selector: Any
    gpu_tolerations: Any
    gpu_affinity: Any


# the inputs of a pipeline that places a GPU stage: `OnGpu`'s fields, as KFP types them
GPU_INPUTS = {
    "gpu_image": str,
    "gpu_type": str,
    "gpu_count": str,
    "gpu_stage_memory": str,
    "gpu_node_selector": dict,
    "gpu_tolerations": list,
    "gpu_affinity": dict,
}


def gpu_stages(section: PlacementSection) -> set[str]:
    """The components that get a GPU."""
    return {"synthesize", "prune_on_dreams", "scan_sensitivity", "recover"} | (
        {"evaluate"} if section.evaluate_on_gpu else set()
    )


def parameters(section: PlacementSection) -> dict[str, Any]:
    """The pipeline parameters that a placement section stands for."""
    return {
        "num_shards": section.num_shards,
        "cpu_image": section.cpu_image or CPU_IMAGE,
        "gpu_image": section.gpu_image or GPU_IMAGE,
        "gpu_type": section.gpu_type,
        "gpu_count": str(section.gpus),
        "gpu_stage_memory": section.gpu_stage_memory,
        "gpu_node_selector": dict(section.gpu_node_selector),
        "gpu_tolerations": [dict(toleration) for toleration in section.gpu_tolerations] if section.gpus else [],
        "gpu_affinity": gpu_affinity(section),
        "storage_secret": section.storage_secret,
        "checkpoint_secret": section.checkpoint_secret,
    }


# the fields that `parameters` and the pipeline's checkpoints stand for
_AT_SUBMIT = (
    "num_shards",
    "cpu_image",
    "gpu_image",
    "gpu_type",
    "gpus",
    "gpu_stage_memory",
    "gpu_node_selector",
    "gpu_tolerations",
    "gpu_memory_gib",
    "storage_secret",
    "checkpoint_secret",
    "checkpoints",
)


def compiled_in(section: PlacementSection) -> PlacementSection:
    """What is left of a section when all that a run's parameters say is set back to its default."""
    return PlacementSection(**section.model_dump(exclude=set(_AT_SUBMIT)))


def gpu_affinity(section: PlacementSection) -> dict[str, Any]:
    """Kubernetes' NodeAffinity for GPUs with enough memory; {} where any will do."""
    if section.gpu_memory_gib is None or not section.gpus:
        return {}
    # the label counts MiB, of which a GPU sold as 80 GB has 81,559: Gt is >
    enough = {"key": GPU_MEMORY_LABEL, "operator": "Gt", "values": [str(int(section.gpu_memory_gib * 1024) - 1)]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [enough]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": terms}


def on_gpu(task: PipelineTask, where: OnGpu, section: PlacementSection) -> PipelineTask:
    """Give a stage a GPU, on a node that has one, and another try when the node is taken away.

    The stage must not stand directly in a `dsl.If` or a `dsl.ParallelFor`: see `pipeline.nested`.
    """
    from kfp import kubernetes

    # without a type, KFP drops the limit silently
    task.set_accelerator_type(where.gpu_type).set_accelerator_limit(where.gpu_count)
    task.set_container_image(where.gpu_image)
    task.set_memory_limit(where.gpu_stage_memory).set_cpu_request(section.gpu_stage_cpus)
    kubernetes.add_node_selector_json(task, where.gpu_node_selector)
    kubernetes.add_toleration_json(task, where.gpu_tolerations)
    kubernetes.add_node_affinity_json(task, where.gpu_affinity)
    kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", medium="Memory", size_limit=section.shared_memory)  # noqa: S108
    kubernetes.set_timeout(task, section.timeout_seconds)
    task.set_retry(
        section.retries,
        backoff_duration=f"{section.retry_pause_seconds}s",
        backoff_factor=2.0,
        backoff_max_duration=f"{20 * section.retry_pause_seconds}s",
    )
    return _everywhere(task, section)


def on_cpu(task: PipelineTask, image: Any, section: PlacementSection) -> PipelineTask:
    """Keep a stage that needs no GPU off the nodes that have them."""
    from kfp import kubernetes

    task.set_container_image(image)
    task.set_memory_limit(section.cpu_stage_memory).set_cpu_request(section.cpu_stage_cpus)
    kubernetes.add_node_affinity(task, [{"key": GPU_NODE_LABEL, "operator": "DoesNotExist"}])
    return _everywhere(task, section)


def with_storage(task: PipelineTask, secret: Any) -> PipelineTask:
    """Let a stage reach object storage as the secret says; it may be missing where no stage needs storage."""
    from kfp import kubernetes

    kubernetes.use_secret_as_volume(task, secret, SECRETS_FOLDER, optional=True)
    task.set_env_variable("RESPROUT_STORAGE_SECRETS", SECRETS_FOLDER)
    return task


def _everywhere(task: PipelineTask, section: PlacementSection) -> PipelineTask:
    from kfp import kubernetes

    # for network policies and quotas
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "resprout")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", task.component_spec.name)
    kubernetes.set_security_context(task, run_as_user=65532, run_as_group=65532, run_as_non_root=True)
    if section.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(section.image_pull_secrets))
    return task
