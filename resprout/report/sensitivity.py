"""How much each layer alone can spare: curves over the layers, and a heat map with every figure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from resprout.evaluation import percent
from resprout.report.charts import Chart, line_chart, number
from resprout.report.confusion import Cell
from resprout.report.layers import MAX_BARS
from resprout.types import Sensitivity

MOST_NAMED = 5


@dataclass(frozen=True)
class SensitiveLayer:
    """A layer, how many weights it has, their share of all, and the share of answers that pruning it costs."""

    name: str
    weights: int
    share: float
    lost: float


@dataclass(frozen=True)
class Scan:
    """All that the template needs: `rows` holds a name and one cell per sparsity."""

    charts: tuple[Chart, ...]
    sparsities: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    most_sensitive: tuple[SensitiveLayer, ...]
    how: str

    @property
    def is_long(self) -> bool:
        """Whether the heat map is shown on demand only."""
        return len(self.rows) > MAX_BARS


def scan_of(sensitivity: Sensitivity | None) -> Scan | None:
    """A scan as the page shows it; None where there is none."""
    if sensitivity is None:
        return None
    labels = tuple(f"{100 * sparsity:g} %" for sparsity in sensitivity.sparsities)
    charts = [_chart("Agreement with the teacher", sensitivity.agreement, labels, note="share of equal top-1 answers")]
    if sensitivity.top1 is not None:
        charts.append(_chart("Top-1 on labelled images", sensitivity.top1, labels, note=_whole(sensitivity)))
    else:
        charts.append(
            _chart("KL divergence to the teacher", sensitivity.kl_divergence, labels, note="nats", share=False)
        )
    return Scan(
        charts=tuple(chart for chart in charts if chart is not None),
        sparsities=labels,
        rows=_rows(sensitivity),
        most_sensitive=most_sensitive(sensitivity),
        how=_how(sensitivity),
    )


def most_sensitive(sensitivity: Sensitivity, count: int = MOST_NAMED) -> tuple[SensitiveLayer, ...]:
    """The layers whose pruning costs most answers, on average over the sparsities; first the one that costs most."""
    weights = dict(zip(sensitivity.layers, sensitivity.num_weights, strict=True))
    total = sum(sensitivity.num_weights)
    return tuple(
        SensitiveLayer(name, weights[name], weights[name] / total, lost) for name, lost in sensitivity.ranking()[:count]
    )


def _chart(title: str, values: Tensor, labels: tuple[str, ...], *, note: str, share: bool = True) -> Chart | None:
    curves = {f"{label} gone": values[:, column] for column, label in enumerate(labels)}
    drawn = line_chart(title, curves, note=note, x_label="layer, in network order", share=share)
    if drawn is None:
        return None
    low, high = float(values.min()), float(values.max())
    form = percent if share else number
    summary = f"{title}: one line per sparsity over {len(values)} layers, from {form(low)} to {form(high)}."
    # where a line ends is the last layer's figure, which says nothing of the others
    return replace(drawn, lines=tuple(replace(line, last="") for line in drawn.lines), summary=summary)


def _rows(sensitivity: Sensitivity) -> tuple[tuple[str, tuple[Cell, ...]], ...]:
    worst = float((sensitivity.whole_agreement - sensitivity.agreement).clamp_min(0).max()) or 1.0
    return tuple(
        (
            layer.removesuffix(".weight"),
            tuple(_cell(sensitivity, row, column, worst) for column in range(len(sensitivity.sparsities))),
        )
        for row, layer in enumerate(sensitivity.layers)
    )


def _cell(sensitivity: Sensitivity, row: int, column: int, worst: float) -> Cell:
    agreement = float(sensitivity.agreement[row, column])
    told = [
        f"{sensitivity.layers[row]} without {100 * sensitivity.sparsities[column]:g} % of its weights: "
        f"agrees on {percent(agreement)}",
        f"KL {number(float(sensitivity.kl_divergence[row, column]))}",
    ]
    if sensitivity.top1 is not None:
        told.append(f"top-1 {percent(float(sensitivity.top1[row, column]))}")
    strength = round(max(0.0, sensitivity.whole_agreement - agreement) / worst, 3)
    return Cell(strength, f"{100 * agreement:.0f}", ", ".join(told), False)


def _whole(sensitivity: Sensitivity) -> str:
    return "" if sensitivity.teacher_top1 is None else f"the whole teacher has {percent(sensitivity.teacher_top1)}"


def _how(sensitivity: Sensitivity) -> str:
    repaired, kind = sensitivity.num_repair_dreams, "real images" if sensitivity.images_source else "dreams"
    then = f"BatchNorm is re-estimated on {repaired:,} {kind}" if repaired else "BatchNorm is left as it was"
    held_out = sensitivity.num_held_out_dreams
    compared = (
        f"{then}, and the answers to {held_out:,} held-out {kind} and their blends are compared with the teacher’s."
    )
    if not repaired:
        return compared
    return f"{compared} With nothing pruned, {percent(sensitivity.whole_agreement)} are equal; losses count from there."
