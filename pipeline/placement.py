"""Where stages run on a cluster: GPUs, nodes, memory, secrets, retries; applied in one place.

What may be said for each run comes from `plan`'s outputs; the rest is compiled in from the recipe's placement section.
Locally, KFP ignores all of it but the retries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components._image import CPU_IMAGE, GPU_IMAGE
from resprout.recipe import PlacementSection
from resprout.recipe.placement import AT_SUBMIT

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

SECRETS_FOLDER = "/var/run/secrets/resprout-storage"
PUBLISHING_FOLDER = "/var/run/secrets/resprout-publishing"
SIGNING_SECRET = "resprout-signing"  # noqa: S105 - its name, which no recipe chooses
SIGNING_FOLDER = "/var/run/secrets/resprout-signing"
GPU_NODE_LABEL = "nvidia.com/gpu.present"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# cores and memory of the stages that only look at numbers and move bytes
SMALL = {"plan": ("100m", "512Mi"), "gate": ("100m", "512Mi"), "publish": ("100m", "1Gi")}


def images(section: PlacementSection) -> tuple[str, str]:
    """The images of the stages without a GPU and of those with one."""
    return section.cpu_image or CPU_IMAGE, section.gpu_image or GPU_IMAGE


def gpu_stages(section: PlacementSection) -> set[str]:
    """The components that get a GPU."""
    return {"synthesize", "prune", "scan_sensitivity", "recover"} | ({"evaluate"} if section.evaluate_on_gpu else set())


def memory(section: PlacementSection, stage: str) -> str:
    """The main memory that a component may take, as Kubernetes writes it: `4Gi`."""
    on_cpu = SMALL.get(stage, ("", section.cpu_stage_memory))[1]
    return section.gpu_stage_memory if stage in gpu_stages(section) else on_cpu


def placed(
    task: PipelineTask,
    section: PlacementSection,
    planned: PipelineTask | None = None,
    *,
    gpus: str | None = None,
    secret: str | None = None,
    publishing: str | None = None,
) -> PipelineTask:
    """Say where a stage runs.

    Args:
        task: the stage.
        section: what is compiled in.
        planned: the task `plan`, of whose outputs a stage with a GPU takes what it asks for.
        gpus: the output that says how many; None: the stage gets none.
        secret: what it reaches object storage with; None: it does not.
        publishing: what it tries with whether a result can be published; None: it does not.
    """
    from kfp import kubernetes

    cpu_image, gpu_image = images(section)
    if gpus is None or planned is None:
        task.set_container_image(cpu_image)
        _on_cpu(task, section)
    else:
        task.set_container_image(gpu_image)
        _on_gpu(task, section, planned, gpus)
    kubernetes.set_timeout(task, section.timeout_seconds)
    task.set_retry(
        section.retries,
        backoff_duration=f"{section.retry_pause_seconds}s",
        backoff_factor=2.0,
        # Argo counts it from the first try's start: a shorter one would keep a stage that died late from another
        backoff_max_duration=f"{(section.retries + 1) * section.timeout_seconds}s",
    )
    # for network policies and quotas
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "resprout")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", task.component_spec.name)
    if section.queue:
        kubernetes.add_pod_label(task, QUEUE_LABEL, section.queue)
    kubernetes.set_security_context(task, run_as_user=65532, run_as_group=65532, run_as_non_root=True)
    if section.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(section.image_pull_secrets))
    _mount(task, secret, SECRETS_FOLDER, "RESPROUT_STORAGE_SECRETS")
    _mount(task, publishing, PUBLISHING_FOLDER, "RESPROUT_STORAGE_PUBLISHING_SECRETS")
    if task.component_spec.name == "publish":
        _vouching(task, section)
    return task


def _mount(task: PipelineTask, secret: str | None, folder: str, variable: str) -> None:
    from kfp import kubernetes

    if secret:
        # it may be missing where no address needs it, or nobody signs
        kubernetes.use_secret_as_volume(task, secret, folder, optional=True)
        task.set_env_variable(variable, folder)


def _vouching(task: PipelineTask, section: PlacementSection) -> None:
    """Let a stage say what made the result, and sign it; no other stage has the key."""
    from kfp import kubernetes

    _mount(task, SIGNING_SECRET, SIGNING_FOLDER, "RESPROUT_SIGNING_SECRETS")
    task.set_env_variable("RESPROUT_IMAGES", " ".join(dict.fromkeys(images(section))))
    kubernetes.use_field_path_as_env(task, "RESPROUT_RUN", "metadata.labels['pipeline/runid']")


def _on_cpu(task: PipelineTask, section: PlacementSection) -> None:
    from kfp import kubernetes

    cores, memory = SMALL.get(task.component_spec.name, (section.cpu_stage_cpus, section.cpu_stage_memory))
    task.set_cpu_request(cores).set_memory_limit(memory)
    # a preference: where every node has a GPU, a stage without one must run too
    operator = "Exists" if section.use_gpu_nodes else "DoesNotExist"
    kubernetes.add_node_affinity(task, [{"key": GPU_NODE_LABEL, "operator": operator}], weight=100)
    if section.use_gpu_nodes:
        for toleration in section.gpu_tolerations:
            kubernetes.add_toleration(task, **_as_keywords(toleration))


def _as_keywords(toleration: Any) -> dict[str, Any]:
    return {{"tolerationSeconds": "toleration_seconds"}.get(key, key): value for key, value in toleration.items()}


def _on_gpu(task: PipelineTask, section: PlacementSection, planned: PipelineTask, gpus: str) -> None:
    """Give a stage GPUs, on a node that has them."""
    from kfp import kubernetes

    said = planned.outputs
    # without a type, KFP drops the limit silently
    task.set_accelerator_type(said["gpu_type"]).set_accelerator_limit(said[gpus])
    task.set_memory_limit(said["gpu_stage_memory"]).set_cpu_request(said["gpu_stage_cpus"])
    # in a loop, kfp 2.17.0 forgets that the task needs these
    task.register_pipeline_channels([said[name] for name in ("gpu_type", gpus, "gpu_stage_memory", "gpu_stage_cpus")])
    kubernetes.add_toleration_json(task, said["gpu_tolerations"])
    kubernetes.add_node_affinity_json(task, said["gpu_affinity"])
    kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", medium="Memory", size_limit=section.shared_memory)  # noqa: S108


def compiled_in(section: PlacementSection) -> PlacementSection:
    """What is left of a section when all that a run may say is set back to its default.

    Where stages without a GPU use the nodes that have them, the taints that they tolerate stay: of these stages, a run
    can say nothing.
    """
    said = AT_SUBMIT - {"gpu_tolerations"} if section.use_gpu_nodes else AT_SUBMIT
    return PlacementSection(**section.model_dump(exclude=set(said)))
