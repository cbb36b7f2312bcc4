"""Which nodes the compiled pipeline's pods fit and go to, by a small model of Kubernetes' scheduler.

It knows taints (NoSchedule), node affinity, required and preferred, cores, memory and extended resources, and nothing
else: no other pods. The containers that KFP and Argo add to a pod ask for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes.utils import parse_quantity

from components._asked import asked
from pipeline import command, recipes
from pipeline.placement import QUEUE_LABEL, gpu_stages
from resprout import recipe as recipe_module
from resprout.recipe import Recipe
from resprout.recipe.form import KINDS, from_inputs, kind_of, to_inputs
from tests.pipeline.compiled import PLACEHOLDER, Stage, read

RECIPES = Path(__file__).parents[2] / "recipes"
GPU = "nvidia.com/gpu"
# what is left of 4 vCPU and 16 GiB on a managed cluster (docs/gpu-nodes.md)
SMALL_NODE = {"cpu": "3920m", "memory": "14.7Gi"}


@dataclass(frozen=True)
class Node:
    """A node as its cluster describes it; its memory labels are what NVIDIA's feature discovery writes, in MiB."""

    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    has: Mapping[str, str] = field(default_factory=lambda: SMALL_NODE)


def gpu(
    memory: int,
    product: str,
    resource: str = GPU,
    taints: tuple[str, ...] = (GPU,),
    count: int = 4,
    has: Mapping[str, str] = SMALL_NODE,
) -> Node:
    labels = {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.memory": str(memory), "nvidia.com/gpu.product": product}
    return Node(labels, taints, {**has, resource: str(count)})


CLUSTER = {
    "cpu": Node(),
    "cpu, labelled": Node({"topology.kubernetes.io/zone": "a"}),
    "T4": gpu(15360, "Tesla-T4"),
    "T4, without taint": gpu(15360, "Tesla-T4", taints=()),
    "H100": gpu(81559, "NVIDIA-H100-80GB-HBM3"),
    "H100 in slices": gpu(9856, "NVIDIA-H100-MIG-1g.10gb", "nvidia.com/mig-1g.10gb"),
    "reserved H100": gpu(81559, "NVIDIA-H100-80GB-HBM3", taints=(GPU, "team/reserved")),
}
ONLY_CPU = {"cpu", "cpu, labelled"}


@dataclass(frozen=True)
class Pod:
    """What a stage asks of a node."""

    tolerated: set[str]
    required: list[Mapping[str, Any]]
    preferred: list[tuple[float, list[Mapping[str, Any]]]]
    resources: Mapping[str, str]

    def fits(self, node: Node) -> bool:
        return (
            set(node.taints) <= self.tolerated
            and agrees(self.required, node)
            and all(
                parse_quantity(node.has.get(name, "0")) >= parse_quantity(it) for name, it in self.resources.items()
            )
        )

    def score(self, node: Node) -> float:
        return sum(weight for weight, expressions in self.preferred if agrees(expressions, node))


def agrees(expressions: list[Mapping[str, Any]], node: Node) -> bool:
    return all(OPERATORS[it["operator"]](node.labels.get(it["key"]), it.get("values", ())) for it in expressions)


OPERATORS: dict[str, Callable[[str | None, Any], bool]] = {
    "In": lambda value, values: value in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": lambda value, values: value is not None and int(value) > int(values[0]),
}


def pod(stage: Stage, planned: Mapping[str, Any]) -> Pod:
    """A stage's pod when these are `plan`'s outputs."""

    def said(path: str) -> Any:
        return planned[stage.placement[path].removeprefix("plan.")]

    required: list[Mapping[str, Any]] = []
    preferred: list[tuple[float, list[Mapping[str, Any]]]] = []
    for index, term in enumerate(stage.kubernetes.get("nodeAffinity", ())):
        if "nodeAffinityJson" in term:
            whole = said(f"/nodeAffinity/{index}/nodeAffinityJson")
            assert set(whole) <= {"requiredDuringSchedulingIgnoredDuringExecution"}
            terms = whole.get("requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": []})
            assert len(terms["nodeSelectorTerms"]) <= 1, "terms are alternatives, which this model does not know"
            required += [it for found in terms["nodeSelectorTerms"] for it in found["matchExpressions"]]
        elif "weight" in term:
            preferred.append((term["weight"], term["matchExpressions"]))
        else:
            required += term["matchExpressions"]
    assert "nodeSelector" not in stage.kubernetes, "which this model does not know"
    tolerated = set()
    for index, it in enumerate(stage.kubernetes.get("tolerations", ())):
        several = said(f"/tolerations/{index}/tolerationJson") if "tolerationJson" in it else [it]
        tolerated |= {toleration["key"] for toleration in several}
    return Pod(tolerated, required, preferred, requests(stage, said))


def requests(stage: Stage, said: Callable[[str], Any]) -> dict[str, str]:
    resources = stage.container["resources"]

    def value(name: str, text: str) -> str:
        return str(said(name)) if PLACEHOLDER.search(text) else text

    # what a container may have at most is what it asks for, where it asks for nothing else
    found = {
        "cpu": value("cpus", resources["resourceCpuRequest"]),
        "memory": value("memory", resources["resourceMemoryLimit"]),
    }
    if accelerator := resources.get("accelerator"):
        found[value("type", accelerator["resourceType"])] = value("count", accelerator["resourceCount"])
    return found


@dataclass(frozen=True)
class Run:
    """A run's pods, by the component that each runs."""

    pods: Mapping[str, Pod]
    on_gpu: set[str]

    def fits(self, component: str, cluster: Mapping[str, Node] = CLUSTER) -> set[str]:
        return {name for name, node in cluster.items() if self.pods[component].fits(node)}

    def goes_to(self, component: str, cluster: Mapping[str, Node] = CLUSTER) -> set[str]:
        """The nodes that it is put on while all of them have room."""
        scores = {name: self.pods[component].score(cluster[name]) for name in self.fits(component, cluster)}
        return {name for name, score in scores.items() if score == max(scores.values())}

    def others(self) -> Iterator[str]:
        return (name for name in self.pods if name not in self.on_gpu)


def run_of(
    path: Path, *changes: str, at_submit: Mapping[str, Any] | None = None, recipe: str = "demo", kind: str | None = None
) -> Run:
    """A recipe's run: what is compiled in of its placement, and what `plan` says of the inputs."""
    made = recipes.override(recipe_module.load(RECIPES / f"{recipe}.yaml"), changes)
    kind = kind or kind_of(made)
    command.compile_placed(path, made.placement, kind)
    inputs = to_inputs(made, kind)
    inputs["placement"].update(at_submit or {})
    planned = asked(from_inputs(kind, inputs).placement)
    pods = {stage.component: pod(stage, planned) for stage in read(path)}
    return Run(pods, {name.replace("_", "-") for name in gpu_stages(made.placement)} & set(pods))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pipeline.yaml"


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
            {"gpu_tolerations": [{"key": key, "operator": "Exists"} for key in (GPU, "team/reserved")]},
            {"H100", "reserved H100"},
        ),
        ((), {"gpu_stage_memory": "24Gi"}, set()),
    ],
    ids=["defaults", "40 GiB", "a slice", "a slice at submit", "a T4 at submit", "no taint", "reserved", "24 GiB"],
)
def test_gpu_stages_fit_exactly_the_nodes_that_are_meant_and_the_others_avoid_them(
    path: Path, changes: tuple[str, ...], at_submit: dict[str, Any], expected: set[str]
):
    run = run_of(path, *changes, at_submit=at_submit)

    assert run.on_gpu == {"synthesize", "prune", "recover"}
    for component in run.on_gpu:
        assert run.fits(component) == expected, component
    for component in run.others():
        assert run.goes_to(component) == ONLY_CPU, component
        assert run.fits(component) == ONLY_CPU | {"T4, without taint"}, "a preference, no more"


def test_evaluation_goes_where_the_gpus_are_if_it_is_to(path: Path):
    run = run_of(path, "placement.evaluate_on_gpu=true")
    assert run.fits("evaluate") == run.fits("recover") == {"T4", "T4, without taint", "H100"}


def test_a_cluster_without_gpus_runs_everything(path: Path):
    cluster = {name: CLUSTER[name] for name in ONLY_CPU}
    with_gpus = run_of(path)
    assert all(not with_gpus.fits(component, cluster) for component in with_gpus.on_gpu)

    run = run_of(path, at_submit={"gpus": 0})
    assert all(run.goes_to(component, cluster) == ONLY_CPU for component in run.pods)


@pytest.mark.parametrize(
    ("recipe", "kind"), [("demo", "compress"), ("demo", "scan"), ("with-data", "compress-images")], ids=KINDS
)
def test_a_cluster_of_one_small_node_with_one_gpu_runs_everything(path: Path, recipe: str, kind: str):
    cluster = {"only": gpu(15360, "Tesla-T4", taints=(), count=1)}
    run = run_of(path, recipe=recipe, kind=kind)

    assert all(run.fits(component, cluster) for component in run.pods)
    smaller = {"only": gpu(15360, "Tesla-T4", taints=(), count=1, has={"cpu": "2920m", "memory": "11.9Gi"})}
    assert {name for name in run.pods if not run.fits(name, smaller)} == run.on_gpu, "cores and memory are looked at"


def test_a_cluster_whose_every_node_is_kept_for_gpus_runs_everything_that_is_told_so(path: Path):
    cluster = {name: CLUSTER[name] for name in ("T4", "H100")}
    told = run_of(path, "placement.use_gpu_nodes=true")
    assert all(told.fits(component, cluster) == set(cluster) for component in told.pods)

    untold = run_of(path)
    assert {component for component in untold.pods if not untold.fits(component, cluster)} == set(untold.others())


def test_taints_of_ones_own_are_tolerated_by_all_stages_of_such_a_cluster(path: Path):
    cluster = {"only": CLUSTER["reserved H100"]}
    both = 'placement.gpu_tolerations=[{"key":"nvidia.com/gpu"},{"key":"team/reserved"}]'
    run = run_of(path, "placement.use_gpu_nodes=true", both)
    assert all(run.fits(component, cluster) for component in run.pods)


def test_where_gpu_nodes_are_to_be_used_they_are_preferred(path: Path):
    run = run_of(path, "placement.use_gpu_nodes=true")
    with_gpus = {"T4", "T4, without taint", "H100", "H100 in slices"}
    for component in run.others():
        assert run.goes_to(component) == with_gpus, component
        assert run.fits(component) == with_gpus | ONLY_CPU, component


def test_several_gpus_go_to_synthesis_alone(path: Path):
    run = run_of(path, at_submit={"gpus": 4})
    assert {name: it.resources[GPU] for name, it in run.pods.items() if GPU in it.resources} == {
        "synthesize": "4",
        "prune": "1",
        "recover": "1",
    }
    one_each = {"only": gpu(15360, "Tesla-T4", count=1)}
    assert (run.fits("synthesize", one_each), run.fits("recover", one_each)) == (set(), {"only"})


def test_stages_that_decide_ask_for_little(path: Path):
    run = run_of(path)
    crumb = {"crumb": Node(has={"cpu": "100m", "memory": "1Gi"})}
    assert {component for component in run.pods if run.fits(component, crumb)} == {"plan", "gate", "publish"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_pod_waits_in_the_queue_that_was_compiled_in(path: Path, kind: str):
    recipe = Recipe.model_validate({"teacher": {"source": "t"}, "placement": {"queue": "team-vision"}})
    command.compile_placed(path, recipe.placement, kind)
    assert {stage.kubernetes["podMetadata"]["labels"].get(QUEUE_LABEL) for stage in read(path)} == {"team-vision"}
