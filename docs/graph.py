"""Draw the compiled pipeline's stages and what passes between them: `python docs/graph.py` writes images/graph.svg.

What is drawn is read from pipeline/compress.yaml; only where each stage stands is said here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import yaml

COMPILED = Path(__file__).parents[1] / "pipeline" / "compress.yaml"
PICTURE = Path(__file__).parent / "images" / "graph.svg"

# column and row of each stage; one that is compiled and not placed here is an error
PLACES = {
    "plan": (0, 1.0),
    "fetch-teacher": (1, 1.0),
    "extract-statistics": (2, 1.0),
    "fetch-test-set": (2, 0.0),
    "synthesize": (3, 1.0),
    "merge-dreams": (4, 1.0),
    "prune": (5, 1.0),
    "recover": (6, 1.0),
    "evaluate": (7, 1.0),
    "gate": (8, 1.0),
    "publish": (9, 1.0),
}
# how many rows an arrow goes out of its way, up or down, round what stands between
DETOURS = {
    ("fetch-test-set", "evaluate"): -0.4,
    ("extract-statistics", "evaluate"): 1.5,
    ("merge-dreams", "evaluate"): 1.1,
    ("merge-dreams", "recover"): 0.7,
    ("prune", "evaluate"): -0.7,
    ("recover", "publish"): -0.9,
    ("evaluate", "publish"): 0.7,
}
CAPTIONS = {"synthesize": "num_shards, in parallel"}
LEGEND = (
    "An arrow is an artifact, a dotted one only says which goes first. Stages in blue ask for a GPU.",
    "Not drawn: plan hands every stage its section of the recipe, and each stage up to evaluate gets the teacher.",
)
WIDTH, HEIGHT, STEP_X, STEP_Y, LEFT, TOP = 118, 34, 144, 62, 12, 58

STYLE = """
svg { font: 13px ui-sans-serif, system-ui, sans-serif }
.paper { fill: #fff } text { fill: #1f2328 } .quiet { fill: #59636e; font-size: 12px }
.stage { fill: #f6f8fa; stroke: #818b98 } .gpu { fill: #ddf4ff; stroke: #0969da }
.edge { fill: none; stroke: #818b98; stroke-width: 1.3 } .order { stroke-dasharray: 3 4 } .head { fill: #818b98 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 } text { fill: #f0f6fc } .quiet { fill: #9198a1 }
  .stage { fill: #151b23; stroke: #656c76 } .gpu { fill: #0c2d4f; stroke: #4493f8 }
}
"""


class Edge(NamedTuple):
    """One stage after another: for an artifact of it, or merely in order."""

    source: str
    target: str
    artifact: bool


def edges(spec: Mapping[str, Any]) -> list[Edge]:
    """What passes between the stages, and what else they wait for; of the teacher, only where nothing else is said."""
    passed = set(_passed(spec, spec["root"]["dag"], {}))
    passed = {edge for edge in passed if edge.source != "fetch-teacher" or not _implied(edge, passed)}
    waited = {edge for edge in _waited(spec) if edge._replace(artifact=True) not in passed}
    return sorted(passed | {edge for edge in waited if not _implied(edge, passed | waited)})


def gpu_stages(spec: Mapping[str, Any]) -> set[str]:
    """The stages that ask for a GPU."""
    executors = spec["deploymentSpec"]["executors"].items()
    return {_name(label) for label, made in executors if "accelerator" in made["container"].get("resources", {})}


def _passed(spec: Any, dag: Any, given: Mapping[str, str]) -> Iterator[Edge]:
    for task in dag["tasks"].values():
        component = spec["components"][task["componentRef"]["name"]]
        sources = task.get("inputs", {}).get("artifacts", {})
        made_by = {name: _maker(spec, dag, source, given) for name, source in sources.items()}
        if "dag" in component:
            yield from _passed(spec, component["dag"], made_by)
        else:
            yield from (Edge(maker, _name(component["executorLabel"]), True) for maker in made_by.values())


def _maker(spec: Any, dag: Any, source: Any, given: Mapping[str, str]) -> str:
    """The stage that makes an artifact, in a loop or not."""
    if "componentInputArtifact" in source:
        return given[source["componentInputArtifact"]]
    output = source["taskOutputArtifact"]
    component = spec["components"][dag["tasks"][output["producerTask"]]["componentRef"]["name"]]
    if "dag" not in component:
        return _name(component["executorLabel"])
    (made,) = component["dag"]["outputs"]["artifacts"][output["outputArtifactKey"]]["artifactSelectors"]
    inner = {"producerTask": made["producerSubtask"], "outputArtifactKey": made["outputArtifactKey"]}
    return _maker(spec, component["dag"], {"taskOutputArtifact": inner}, given)


def _waited(spec: Any) -> Iterator[Edge]:
    tasks = spec["root"]["dag"]["tasks"]
    for task in tasks.values():
        for before in task.get("dependentTasks", []):
            for source in _stages(spec, tasks[before]):
                yield from (Edge(source, target, False) for target in _stages(spec, task))


def _stages(spec: Any, task: Any) -> list[str]:
    component = spec["components"][task["componentRef"]["name"]]
    inner = component.get("dag", {}).get("tasks", {}).values()
    return [name for part in inner for name in _stages(spec, part)] or [_name(component["executorLabel"])]


def _implied(edge: Edge, known: Iterable[Edge]) -> bool:
    """Whether other edges lead from its source to its target."""
    others = [other for other in known if other[:2] != edge[:2]]
    reached, frontier = set(), {edge.source}
    while frontier:
        reached |= frontier
        frontier = {other.target for other in others if other.source in frontier} - reached
    return edge.target in reached


def _name(label: str) -> str:
    return re.sub(r"-\d+$", "", label.removeprefix("exec-"))


def svg(spec: Mapping[str, Any]) -> str:
    """The picture."""
    found, on_gpu = edges(spec), gpu_stages(spec)
    names = sorted({edge.source for edge in found} | {edge.target for edge in found}, key=lambda name: PLACES[name])
    width = LEFT * 2 + STEP_X * max(column for column, _ in PLACES.values()) + WIDTH
    height = TOP + STEP_Y * 2.3 + HEIGHT
    title = "The pipeline's stages, from the teacher to the published model"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{title}">',
        f"<title>{title}</title><style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect class="paper" width="{width}" height="{height:.0f}" rx="10"/>',
        *(f'<text class="quiet" x="{LEFT}" y="{24 + 18 * number}">{line}</text>' for number, line in enumerate(LEGEND)),
        *map(_drawn, found),
        *(_box(name, name in on_gpu) for name in names),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _box(name: str, on_gpu: bool) -> str:
    x, y = _corner(name)
    kind = "stage gpu" if on_gpu else "stage"
    caption = CAPTIONS.get(name)
    below = f'<text class="quiet" x="{x + WIDTH / 2}" y="{y + HEIGHT + 15}" text-anchor="middle">{caption}</text>'
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
        f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT / 2 + 4.5}" text-anchor="middle">{escape(name)}</text>'
        f"{below if caption else ''}"
    )


def _drawn(edge: Edge) -> str:
    (x0, y0), (x1, y1) = _corner(edge.source), _corner(edge.target)
    start, end = (x0 + WIDTH, y0 + HEIGHT / 2), (x1 - 2, y1 + HEIGHT / 2)
    reach = (end[0] - start[0]) / 2
    bend = STEP_Y * DETOURS.get(edge[:2], 0)
    kind = "edge" if edge.artifact else "edge order"
    curve = (
        f"C{start[0] + reach:.0f} {start[1] + bend:.0f} {end[0] - reach:.0f} {end[1] + bend:.0f} {end[0]} {end[1]:.0f}"
    )
    return f'<path class="{kind}" marker-end="url(#head)" d="M{start[0]} {start[1]:.0f}{curve}"/>'


def _corner(name: str) -> tuple[int, float]:
    column, row = PLACES[name]
    return LEFT + STEP_X * column, TOP + STEP_Y * row


if __name__ == "__main__":
    PICTURE.write_text(svg(next(yaml.safe_load_all(COMPILED.read_text()))))
