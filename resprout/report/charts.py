"""Line charts of the report: named curves to SVG paths in percent, so that the page scales them to any width."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from resprout.evaluation import percent
from resprout.report.axes import Axis, Tick, axis_for
from resprout.types import BNStatistics

MAX_POINTS = 400
LABELS = {
    "bn": "BatchNorm distance",
    "ce": "cross-entropy",
    "tv": "total variation",
    "l2": "L2",
    "train_kl": "training, softened and scaled",
    "held_out_kl": "held out",
    "train_features": "features, training",
    "train_target": "cross-entropy with the targets, training",
    "agreement": "held out",
}


@dataclass(frozen=True)
class Line:
    """One curve: its label, its SVG path in percent, the number of its colour and dash, and its last value."""

    label: str
    path: str
    style: int
    last: str


@dataclass(frozen=True)
class Chart:
    """All that the template needs to draw a chart; `summary` says it in words."""

    title: str
    note: str
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    summary: str
    band: str = ""


def synthesis_charts(curves: Mapping[str, Tensor]) -> list[Chart]:
    """How well the dreams match BatchNorm's statistics over the iterations, and every other term of their loss."""
    match = {name: curve for name, curve in curves.items() if name == "bn" or "batch" in name}
    others = {name: curve for name, curve in curves.items() if name not in match}
    charts = (
        line_chart("BatchNorm match", match, note="weighted distance to the teacher’s statistics", x_label="iteration"),
        line_chart("Other terms of the loss", others, note="weighted as in the recipe", x_label="iteration"),
    )
    return [chart for chart in charts if chart is not None]


def recovery_charts(curves: Mapping[str, Tensor]) -> list[Chart]:
    """Agreement, KL, learning rate and whatever else recovery recorded, each in a chart of its own unit."""
    groups: dict[str, dict[str, Tensor]] = {"agreement": {}, "kl": {}, "rate": {}, "loss": {}}
    for name, curve in curves.items():
        groups[_group(name)][name] = curve
    charts = (
        line_chart("Agreement with the teacher", groups["agreement"], note="share of equal top-1 answers", share=True),
        line_chart("KL divergence to the teacher", groups["kl"], note="nats"),
        line_chart("Other losses", groups["loss"], note=""),
        line_chart("Learning rate", groups["rate"], note="per optimiser step"),
    )
    return [chart for chart in charts if chart is not None]


def _group(name: str) -> str:
    if any(word in name for word in ("agreement", "accuracy", "top1")):
        return "agreement"
    if name.endswith("kl") or "kl_" in name:
        return "kl"
    return "rate" if name in ("lr", "learning_rate") else "loss"


def line_chart(
    title: str, curves: Mapping[str, Tensor], *, note: str, x_label: str = "epoch", share: bool = False
) -> Chart | None:
    """Curves of one unit over steps 1, 2, …; None when there is no finite value to draw.

    Args:
        title: of the chart.
        curves: name -> shape (steps,); gaps are left where a value is not finite.
        note: the unit, or what was measured.
        x_label: what a step is.
        share: values are shares in [0, 1], shown in percent.
    """
    drawn = {name: [float(value) for value in curve.flatten()] for name, curve in curves.items()}
    finite = [value for values in drawn.values() for value in values if math.isfinite(value)]
    if not finite:
        return None
    form = percent if share else number
    steps = max(map(len, drawn.values()))
    across = Axis(1, steps) if steps > 1 else Axis(0, 2)
    up = axis_for(finite, floor=0, ceiling=1) if share else axis_for(finite)
    lines = tuple(
        Line(LABELS.get(name, name.replace("_", " ")), line_path(values, across, up), style, _last(values, form))
        for style, (name, values) in enumerate(drawn.items())
    )
    last = "; ".join(f"{line.label} ends at {line.last}" for line in lines)
    return Chart(
        title=title,
        note=", ".join(filter(None, [note, "logarithmic" if up.logarithmic else ""])),
        x_label=x_label,
        x_ticks=across.ticks(lambda value: f"{value:,.0f}", whole=True) if steps > 1 else (Tick(50, "1"),),
        y_ticks=up.ticks(coarse_percent if share else number),
        lines=lines,
        summary=f"{title}: {last} after {steps:,} {x_label}{'s' if steps > 1 else ''}.",
    )


def profile(title: str, values: Sequence[float], overall: float, *, note: str) -> Chart:
    """One share in [0, 1] per layer, in network order, as steps; and the whole network's as a level line."""
    across, up = Axis(0, len(values)), Axis(0, 1)
    heights = [f"{100 - up.position(value):.1f}" for value in values]
    path = "".join(
        f"{'M' if index == 0 else 'L'}{across.position(index):.2f} {height}H{across.position(index + 1):.2f}"
        for index, height in enumerate(heights)
    )
    return Chart(
        title=title,
        note=note,
        x_label="layer, in network order",
        x_ticks=across.ticks(lambda value: f"{value:.0f}", whole=True),
        y_ticks=up.ticks(coarse_percent),
        lines=(
            Line("each layer", path, 0, ""),
            Line("whole network", f"M0 {100 - up.position(overall):.1f}H100", 1, percent(overall)),
        ),
        summary=f"{title}: {len(values)} layers, from {percent(min(values))} to {percent(max(values))}.",
        band=f"{path}V100H0Z",
    )


def statistics_charts(statistics: BNStatistics) -> list[Chart]:
    """The range and the median over channels of each layer's running means and variances."""
    if not statistics.layers:
        return []
    return [
        _range_chart("Running mean", [layer.mean for layer in statistics.layers]),
        _range_chart("Running variance + ε", [layer.variance + layer.eps for layer in statistics.layers]),
    ]


def _range_chart(title: str, layers: Sequence[Tensor]) -> Chart:
    low, middle, high = ([float(value) for value in row] for row in zip(*map(quantiles, layers), strict=True))
    across = Axis(1, len(layers)) if len(layers) > 1 else Axis(0, 2)
    up = axis_for([*low, *high])
    outline = line_path(low, across, up) + line_path(high[::-1], across, up, backwards=True)
    return Chart(
        title=title,
        note="band: all channels; line: median" + (", logarithmic" if up.logarithmic else ""),
        x_label="BatchNorm layer",
        x_ticks=across.ticks(lambda value: f"{value:.0f}", whole=True),
        y_ticks=up.ticks(number),
        lines=(Line("median channel", line_path(middle, across, up), 0, ""),),
        summary=f"{title} of {len(layers)} layers, from {number(min(low))} to {number(max(high))}.",
        band=outline + "Z",
    )


def quantiles(values: Tensor) -> tuple[float, float, float]:
    """(smallest, median, largest)."""
    return float(values.min()), float(values.median()), float(values.max())


def line_path(values: Sequence[float], across: Axis, up: Axis, *, backwards: bool = False) -> str:
    """An SVG path through (1, values[0]), (2, values[1]), … in percent, y downwards, with gaps where not finite.

    Args:
        values: one per step; of more than `MAX_POINTS` only evenly spread ones are drawn, and the last.
        across, up: the axes.
        backwards: continue a path from the last step to the first.
    """
    stride = math.ceil(len(values) / MAX_POINTS)
    parts, pen = [], "L" if backwards else "M"
    for index in sorted({*range(0, len(values), stride), len(values) - 1}):
        if not math.isfinite(values[index]):
            pen = "M"
            continue
        step = len(values) - index if backwards else index + 1
        parts.append(f"{pen}{across.position(step):.2f} {100 - up.position(values[index]):.2f}")
        pen = "L"
    # a line of no length, with round caps, is a dot
    return "".join(parts) + ("h0" if len(parts) == 1 else "")


def number(value: float) -> str:
    """Three significant digits, a true minus sign, no exponent where it can be helped."""
    text = f"{value:.3g}"
    if "e" in text and 1e-6 <= abs(value) < 1e6:
        text = f"{value:,.6f}".rstrip("0").rstrip(".") if abs(value) < 1 else f"{value:,.0f}"
    return text.replace("-", "−")


def coarse_percent(share: float) -> str:
    """A share in [0, 1] in percent, three significant digits, no more decimals than it has."""
    return f"{100 * share:.3g} %"


def _last(values: Sequence[float], form: Callable[[float], str]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    return form(finite[-1]) if finite else "—"
