"""What a point of accuracy costs, as a picture: `python benchmarks/plots.py` writes docs/images/cost-resnet20.svg.

Needs matplotlib, which comes with Resprout.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import matplotlib as mpl
import networks

mpl.use("svg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "cost-resnet20.svg"
SPARSITIES = (0.75, 0.9, 0.95)
SHOWN = ("dreams", "paper", "reconstruction", "ours", "ceiling", "plain", "plain_ceiling")
BETTER = {"plain": "ours", "plain_ceiling": "ceiling"}
"""What is shown in its stead, where that was measured."""
LEFT_OUT = {"random", "LAMP, 3 geometric rounds", "LAMP, 3 rounds, 4,096"}
"""What would only crowd the picture; the table has it."""
_YARDSTICK = "global L1"
# of Okabe and Ito, which colour-blind readers tell apart; shapes say the same
STYLES = {
    "dreams": ("#999999", "v"),
    "paper": ("#d55e00", "X"),
    "reconstruction": ("#56b4e9", "s"),
    "ours": ("#0072b2", "o"),
    "ceiling": ("#009e73", "*"),
}


class Point(NamedTuple):
    """What one way to bring accuracy back gave, the mean over seeds, and took, the least of them."""

    criterion: str
    row: str
    sparsity: float
    seconds: float
    top1: float
    plain: bool
    """By plain distillation, or on plain dreams."""


def points(documents: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Every measured way at the sparsities that are shown; what is plain only where nothing took its place."""
    found: dict[tuple[str, str, float], Point] = {}
    for document in sorted(documents, key=networks.coarsest):
        name = _name(document)
        for row in SHOWN if name not in LEFT_OUT else ():
            for sparsity in SPARSITIES:
                cells = [cell for cell in document["cells"] if cell["row"] == row and cell["sparsity"] == sparsity]
                if cells:
                    seconds, top1 = _least(document, row, sparsity), mean(cell["top1"] for cell in cells)
                    assert seconds is not None
                    plain = row in BETTER or networks.coarsest(document) > networks.USUAL_COARSEST
                    point = Point(name, BETTER.get(row, row), sparsity, seconds, top1, plain)
                    found.setdefault((name, point.row, sparsity), point)
    return list(found.values())


def in_time_of(documents: Iterable[Mapping[str, Any]], capability: str) -> list[Mapping[str, Any]]:
    """The same with all seconds as if one kind of processor had measured them.

    Seconds of another kind are taken by what the same work takes on both: global L1's distillation at that sparsity.
    What cannot be compared so is left out.
    """
    found = list(documents)
    yardsticks = {
        (document["machine"]["capability"], sparsity): seconds
        for document in found
        if _name(document) == _YARDSTICK and networks.coarsest(document) == networks.USUAL_COARSEST
        for sparsity in SPARSITIES
        if (seconds := _least(document, "ours", sparsity))
    }

    def scaled(cell: Mapping[str, Any], measured_on: str) -> list[Mapping[str, Any]]:
        if measured_on == capability:
            return [cell]
        theirs, ours = (yardsticks.get((kind, cell["sparsity"])) for kind in (measured_on, capability))
        return [{**cell, "seconds": cell["seconds"] * ours / theirs}] if theirs and ours else []

    return [
        {**each, "cells": [new for cell in each["cells"] for new in scaled(cell, each["machine"]["capability"])]}
        for each in found
        if each["machine"]["capability"] == capability or _name(each) != _YARDSTICK
    ]


def _least(document: Mapping[str, Any], row: str, sparsity: float) -> float | None:
    """Other work on a machine only ever adds time."""
    cells = (cell for cell in document["cells"] if cell["row"] == row and cell["sparsity"] == sparsity)
    return min((cell["seconds"] for cell in cells), default=None)


def _name(document: Mapping[str, Any]) -> str:
    """Which weights went, in few words; a star itself says that real images were looked at, a number is of dreams."""
    words = networks.criterion({**document, "guide": networks.USUAL_GUIDE, "coarsest": networks.USUAL_COARSEST})
    return (
        words.replace("guided by the teacher (2511.16653)", "guided")
        .replace(" trained anew", "")
        .replace(" dreams, 100 iterations", "*")
        .replace("Optimal Brain Compression", "default")
        .removesuffix(" dreams")
    )


def beside(shown: Iterable[Point], gap: float, near: float = 5.0) -> list[tuple[Point, float]]:
    """Each point with the height of its label: its own, or as much above it as keeps labels `gap` apart.

    Args:
        shown: the points of one panel.
        gap: in percent of accuracy.
        near: labels stand in each other's way where their times differ by less than this factor.
    """
    placed: list[tuple[Point, float]] = []
    for point in sorted(shown, key=lambda point: point.top1):
        others = [height for other, height in placed if 1 / near < other.seconds / point.seconds < near]
        placed.append((point, max([point.top1, *(height + gap for height in others)])))
    return placed


def draw(found: list[Point], teacher_top1: float) -> plt.Figure:
    """One panel for each sparsity: seconds, logarithmic, against top-1 in percent."""
    figure, panels = plt.subplots(1, len(SPARSITIES), figsize=(13, 6.4), layout="constrained")
    for panel, sparsity in zip(panels, SPARSITIES, strict=True):
        shown = [point for point in found if point.sparsity == sparsity]
        lowest = min(point.top1 for point in shown)
        panel.set_ylim(lowest - 0.06 * (100 - lowest), teacher_top1 + 0.35 * (100 - teacher_top1))
        panel.axhline(teacher_top1, color="#444444", linewidth=1, linestyle=":")
        panel.annotate("teacher", (1.0, teacher_top1), (4, 3), textcoords="offset points", fontsize=8)
        for point, height in beside(shown, gap=0.021 * (100 - lowest)):
            colour, shape = STYLES[point.row]
            face = "none" if point.plain else colour
            panel.scatter(point.seconds, point.top1, edgecolors=colour, facecolors=face, marker=shape, s=40, zorder=3)
            label = panel.annotate(
                point.criterion, (point.seconds, height), (6, -3), textcoords="offset points", fontsize=7
            )
            label.set_in_layout(False)
        panel.set_xscale("log")
        panel.set_xlim(1, 100_000)
        panel.set_title(f"{100 * sparsity:g} % of the weights gone", fontsize=10)
        panel.set_xlabel("seconds of one core")
        panel.grid(visible=True, color="#dddddd", linewidth=0.6)
    panels[0].set_ylabel("top-1 in percent, 10,000 CIFAR-10 test images")
    handles = [
        plt.Line2D(
            [],
            [],
            color=colour,
            marker=shape,
            linestyle="",
            label=networks.ROWS[row].replace("**", ""),
        )
        for row, (colour, shape) in STYLES.items()
    ]
    hollow = {"color": "#444444", "marker": "o", "linestyle": "", "markerfacecolor": "none"}
    handles.append(plt.Line2D([], [], **hollow, label="hollow: plain dreams, or plain distillation"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def main() -> None:
    results = ROOT / "benchmarks" / "results"
    documents = [json.loads(path.read_text()) for path in sorted(results.glob("avx*/recovery-resnet20*.json"))]
    documents = in_time_of(documents, "AVX512")
    # the same bytes each time, by the same matplotlib
    mpl.rcParams.update({"svg.hashsalt": "resprout", "svg.fonttype": "none", "font.family": "sans-serif"})
    draw(points(documents), documents[0]["teacher_top1"]).savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
