"""Why this sparsity: what `sparsity: auto` tried, against the agreement that it was to keep."""

from __future__ import annotations

from dataclasses import dataclass

from resprout.evaluation import percent
from resprout.report.axes import Axis, axis_for
from resprout.report.charts import Chart, Line, coarse_percent
from resprout.types import SparsityChoice, Trial

MAX_ROWS = 12
"""More trials than that are shown on demand only."""
MARGIN = 0.01
"""Of sparsity, on both sides of what was tried."""
MARK = 2
"""Half the height of a trial's mark on the line, in percent of the chart's."""


@dataclass(frozen=True)
class Tried:
    """All that the template needs; `trials` from the highest sparsity down, `found` is what they showed, in words."""

    chart: Chart
    trials: tuple[Trial, ...]
    sparsity: float
    promised: str
    found: str

    @property
    def is_long(self) -> bool:
        """Whether the table is shown on demand only."""
        return len(self.trials) > MAX_ROWS


def tried_for(choice: SparsityChoice | None) -> Tried | None:
    """A choice as the page shows it; None where the recipe gave a number."""
    if choice is None:
        return None
    return Tried(
        chart=_chart(choice),
        trials=tuple(sorted(choice.trials, key=lambda trial: trial.sparsity, reverse=True)),
        sparsity=choice.sparsity,
        promised=_promised(choice),
        found=_found(choice),
    )


def _chart(choice: SparsityChoice) -> Chart:
    shown = sorted(choice.trials, key=lambda trial: trial.sparsity)
    across = Axis(shown[0].sparsity - MARGIN, shown[-1].sparsity + MARGIN)
    up = axis_for([choice.promised, *(trial.agreement for trial in shown)], floor=0, ceiling=1)
    points = [(across.position(trial.sparsity), 100 - up.position(trial.agreement)) for trial in shown]
    line = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)
    marks = "".join(f"M{x:.2f} {y - MARK:.2f}V{y + MARK:.2f}" for x, y in points)
    return Chart(
        title="Agreement with the teacher",
        note="share of equal top-1 answers",
        x_label="share of weights that are gone",
        x_ticks=across.ticks(coarse_percent),
        y_ticks=up.ticks(coarse_percent),
        lines=(
            Line("tried", line + marks, 0, ""),
            Line("promised", f"M0 {100 - up.position(choice.promised):.2f}H100", 1, _promised(choice)),
            Line("chosen", f"M{across.position(choice.sparsity):.2f} 0V100", 2, percent(choice.sparsity)),
        ),
        summary=f"Agreement with the teacher at {len(shown)} sparsities. {_found(choice)}",
    )


def _promised(choice: SparsityChoice) -> str:
    return f"{100 * choice.promised:.6g} %"


def _found(choice: SparsityChoice) -> str:
    kept = f"{percent(choice.sparsity)} keeps that, with {percent(choice.chosen.agreement)} of the answers equal"
    above = choice.next_above
    if above is None:
        return f"{kept}; nothing higher was tried."
    return f"{kept}; at {percent(above.sparsity)}: {percent(above.agreement)}, which is less than promised."
