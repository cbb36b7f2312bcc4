"""Which nodes the compiled pipeline's pods fit, by a small model of what Kubernetes' scheduler asks of a node.

It knows taints (NoSchedule), node selectors, required node affinity and extended resources, and nothing else: no
preferences, no other pods, no memory or cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import command, recipes
from resprout import recipe as recipe_module
from tests.pipeline.compiled import Stage, read

ROOT = Path(__file__).parents[2]
GPU_STAGES = {"synthesize", "prune-on-dreams", "scan-sensitivity", "recover"}


@dataclass(frozen=True)
class Node:
    """A node as its cluster describes it; its memory labels are what NVIDIA's feature discovery writes, in MiB."""

    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    capacity: Mapping[str, int] = field(default_factory=dict)


def gpu(
    memory: int, product: str, resource: str = "nvidia.com/gpu", taints: tuple[str, ...] = ("nvidia.com/gpu",)
) -> Node:
    labels = {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.memory": str(memory), "nvidia.com/gpu.product": product}
    return Node(labels, taints, {resource: 4})


CLUSTER = {
    "cpu": Node(),
    "cpu, labelled": Node({"topology.kubernetes.io/zone": "a"}),
    "T4": gpu(15360, "Tesla-T4"),
    "T4, without taint": gpu(15360, "Tesla-T4", taints=()),
    "H100": gpu(81559, "NVIDIA-H100-80GB-HBM3"),
    "H100 in slices": gpu(9856, "NVIDIA-H100-MIG-1g.10gb", "nvidia.com/mig-1g.10gb"),
    "reserved H100": gpu(81559, "NVIDIA-H100-80GB-HBM3", taints=("nvidia.com/gpu", "team/reserved")),
}


@dataclass(frozen=True)
class Pod:
    """What a stage asks of a node."""

    selector: Mapping[str, str]
    tolerated: set[str]
    expressions: list[Mapping[str, Any]]
    resources: Mapping[str, int]

    def fits(self, node: Node) -> bool:
        labels = node.labels
        return (
            set(node.taints) <= self.tolerated
            and all(labels.get(key) == value for key, value in self.selector.items())
            and all(
                OPERATORS[it["operator"]](node.labels.get(it["key"]), it.get("values", ())) for it in self.expressions
            )
            and all(node.capacity.get(name, 0) >= count for name, count in self.resources.items() if count)
        )


OPERATORS: dict[str, Callable[[str | None, Any], bool]] = {
    "In": lambda value, values: value in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": lambda value, values: value is not None and int(value) > int(values[0]),
}


def pod(stage: Stage, given: Mapping[str, Any]) -> Pod:
    """A stage's pod when the run's parameters are these."""
    place, config = stage.placement, stage.kubernetes
    expressions = [it for term in config.get("nodeAffinity", ()) for it in term.get("matchExpressions", ())]
    affinity = given[place["/nodeAffinity/0/nodeAffinityJson"]] if "/nodeAffinity/0/nodeAffinityJson" in place else {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": []})
    terms = required["nodeSelectorTerms"]
    assert len(terms) <= 1, "terms are alternatives, which this model does not know"
    expressions += [it for term in terms for it in term["matchExpressions"]]
    tolerations = given[place["/tolerations/0/tolerationJson"]] if "/tolerations/0/tolerationJson" in place else []
    selector = given[place["/nodeSelector/nodeSelectorJson"]] if "/nodeSelector/nodeSelectorJson" in place else {}
    resources = {given[place["type"]]: int(given[place["count"]])} if "type" in place else {}
    return Pod(selector, {it["key"] for it in tolerations}, expressions, resources)


def where(path: Path, *changes: str, at_submit: Mapping[str, Any] | None = None) -> dict[str, set[str]]:
    """Each kind of stage -> the nodes of the cluster that it fits."""
    recipe = recipes.override(recipe_module.load(ROOT / "recipes" / "demo.yaml"), changes)
    command.compile_to(path, recipe)
    parameters = next(yaml.safe_load_all(path.read_text()))["root"]["inputDefinitions"]["parameters"]
    given = {name: parameter.get("defaultValue") for name, parameter in parameters.items()} | dict(at_submit or {})
    found: dict[str, set[str]] = {"gpu": set(CLUSTER), "cpu": set(CLUSTER)}
    for stage in read(path):
        asked = pod(stage, given)
        kind = "gpu" if stage.component in GPU_STAGES else "cpu"
        found[kind] &= {name for name, node in CLUSTER.items() if asked.fits(node)}
        assert found[kind] == {name for name, node in CLUSTER.items() if asked.fits(node)}, stage.component
    return found


ONLY_CPU = {"cpu", "cpu, labelled"}


@pytest.mark.parametrize(
    ("changes", "at_submit", "expected"),
    [
        ((), {}, {"T4", "T4, without taint", "H100"}),
        (("placement.gpu_memory_gib=40",), {}, {"H100"}),
        (("placement.gpu_type=nvidia.com/mig-1g.10gb",), {}, {"H100 in slices"}),
        ((), {"gpu_type": "nvidia.com/mig-1g.10gb"}, {"H100 in slices"}),
        ((), {"gpu_node_selector": {"nvidia.com/gpu.product": "Tesla-T4"}}, {"T4", "T4, without taint"}),
        ((), {"gpu_tolerations": []}, {"T4, without taint"}),
        (
            ("placement.gpu_memory_gib=40",),
            {"gpu_tolerations": [{"key": key, "operator": "Exists"} for key in ("nvidia.com/gpu", "team/reserved")]},
            {"H100", "reserved H100"},
        ),
    ],
    ids=["defaults", "40 GiB", "a slice", "a slice at submit", "a T4 at submit", "no taint", "a reserved node"],
)
def test_gpu_stages_fit_exactly_the_nodes_that_are_meant_and_the_others_none_of_them(
    tmp_path: Path, changes: tuple[str, ...], at_submit: dict[str, Any], expected: set[str]
):
    found = where(tmp_path / "pipeline.yaml", *changes, at_submit=at_submit)
    assert found == {"gpu": expected, "cpu": ONLY_CPU}


def test_a_cluster_without_gpus_runs_everything(tmp_path: Path):
    found = where(tmp_path / "pipeline.yaml", "placement.gpus=0")
    assert found["gpu"] >= ONLY_CPU
    assert found["cpu"] == ONLY_CPU
