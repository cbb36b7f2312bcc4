"""What a GPU stage asks Kubernetes for."""

from __future__ import annotations

from typing import Any

from resprout.recipe import PlacementSection

GPU_MEMORY_LABEL = "nvidia.com/gpu.memory"


def asked(section: PlacementSection) -> dict[str, Any]:
    """The outputs of `plan` that place GPU stages, as KFP takes them: counts are text."""
    tolerations = [dict(toleration) for toleration in section.gpu_tolerations] if section.gpus else []
    return {
        "gpu_type": section.gpu_type,
        "gpus": str(min(section.gpus, 1)),
        "synthesis_gpus": str(section.gpus),
        "gpu_stage_cpus": section.gpu_stage_cpus,
        "gpu_stage_memory": section.gpu_stage_memory,
        "gpu_tolerations": tolerations,
        "gpu_affinity": affinity(section),
    }


def affinity(section: PlacementSection) -> dict[str, Any]:
    """Kubernetes' NodeAffinity for the labels that a node must have and a GPU with enough memory; {}: any node."""
    terms = [{"key": key, "operator": "In", "values": [value]} for key, value in section.gpu_node_selector.items()]
    if section.gpu_memory_gib is not None and section.gpus:
        # the label counts MiB, of which a GPU sold as 80 GB has 81,559: Gt is >
        enough = str(int(section.gpu_memory_gib * 1024) - 1)
        terms.append({"key": GPU_MEMORY_LABEL, "operator": "Gt", "values": [enough]})
    if not terms:
        return {}
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": terms}]}}
