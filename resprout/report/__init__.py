"""The report: one HTML file that opens anywhere, asks the network for nothing, and gives the verdict first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from resprout import __version__
from resprout.evaluation import percent, summary_rows
from resprout.report.charts import number, quantiles, recovery_charts, statistics_charts, synthesis_charts
from resprout.report.choice import tried_for
from resprout.report.confusion import confusions
from resprout.report.layers import layer_sparsities, sparsity_profile
from resprout.report.pictures import dream_grid
from resprout.report.provenance import ROW, arcs, chain
from resprout.report.sensitivity import most_sensitive, scan_of
from resprout.synthesis import notes_on
from resprout.types import BNStatistics, DreamSet, Evaluation, ModelInfo, PruningMask, Sensitivity, SparsityChoice

__all__ = ["render", "render_sensitivity"]

NO_BREAK = "\N{NO-BREAK SPACE}"


def render(
    evaluation: Evaluation,
    *,
    verdict: str,
    recipe: Mapping[str, Any],
    info: ModelInfo,
    statistics: BNStatistics,
    dreams: DreamSet,
    mask: PruningMask,
    recovery_curves: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
    fetched_from: str = "",
    sensitivity: Sensitivity | None = None,
    choice: SparsityChoice | None = None,
    title: str = "Recovery report",
    created: str = "",
) -> str:
    """A run as one self-contained HTML page: no script, no request, the same bytes for the same run.

    Args:
        evaluation: the scores and costs; without labelled data or held-out dreams the page says so.
        verdict: the sentence that comes first.
        recipe: as it was run; shown as YAML.
        info: the teacher's; its input leads dreams back to pixels.
        statistics: what the dreams were matched to.
        dreams: in normalised model-input space; a few of each class are embedded. Where real images took their place,
            the page says so.
        mask: the student's.
        recovery_curves: name -> shape (epochs,); whatever names there are.
        provenance: the evaluation's record, `{name, kind, sha256, inputs, section, seed, about}`, whose inputs are
            such records; empty when unknown.
        fetched_from: where the teacher was fetched from, where that is known.
        sensitivity: how much each layer alone can spare, where it was scanned.
        choice: what was tried for `sparsity: auto`, where the recipe gave no number.
        title: of the page.
        created: when; left out by default, so that the page depends on the run alone.
    """
    steps = chain(provenance)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            title=title,
            created=created,
            version=__version__,
            verdict=verdict,
            info=info,
            evaluation=evaluation,
            summary=summary_rows(evaluation),
            statistics=statistics,
            statistics_charts=statistics_charts(statistics),
            dreams=dreams,
            kind=evaluation.held_out_kind,
            grid=dream_grid(dreams, info.input, info.class_names),
            synthesis_charts=synthesis_charts(dreams.curves),
            notes=notes_on(dreams.curves),
            recovery_charts=recovery_charts(recovery_curves),
            mask=mask,
            layers=layer_sparsities(mask),
            sparsity_profile=sparsity_profile(mask),
            scan=scan_of(sensitivity),
            tried=tried_for(choice),
            confusions=confusions(evaluation),
            recipe=_yaml(recipe),
            steps=steps,
            arcs=arcs(steps),
            fetched_from=fetched_from,
            row_height=ROW,
            test_set=_test_set(recipe, provenance),
        )
    )


def render_sensitivity(
    sensitivity: Sensitivity, *, info: ModelInfo, inputs: Mapping[str, str] | None = None, title: str = "Sensitivity"
) -> str:
    """A scan as one self-contained HTML page, in the report's style.

    Args:
        sensitivity: what was measured.
        info: the teacher's.
        inputs: name -> digest of what it was measured with.
        title: of the page.
    """
    worst = most_sensitive(sensitivity, 1)[0]
    verdict = f"{worst.name} can spare least: pruning it alone costs {percent(worst.lost)} of the answers on average."
    return (
        _environment()
        .get_template("sensitivity_page.html.jinja")
        .render(
            title=title,
            version=__version__,
            verdict=verdict,
            info=info,
            scan=scan_of(sensitivity),
            inputs=dict(inputs or {}),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("resprout.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda share: percent(share).replace(" ", NO_BREAK) or "—",
        "compact": compact,
        "mebibytes": mebibytes,
        "number": number,
        "quantiles": quantiles,
        "yaml": _yaml,
    }
    return environment


def compact(count: int) -> str:
    """A count in three significant digits: `268 k`, `40.8 M`, `1.82 G`."""
    value, units = float(count), ["", *(NO_BREAK + unit for unit in "kMGT")]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f}{units[0]}" if value >= 100 or value == int(value) else f"{value:#.3g}{units[0]}"


def mebibytes(count: int) -> str:
    """Bytes in MiB: `1.10 MiB`."""
    return f"{count / 2**20:,.2f}{NO_BREAK}MiB"


def _test_set(recipe: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Where the labelled test set came from, as the evaluation or the recipe says."""
    for section in (provenance.get("section"), recipe.get("evaluation")):
        if isinstance(section, Mapping) and section.get("data"):
            return str(section["data"])
    return ""


def _yaml(value: Any) -> str:
    return yaml.safe_dump(_plain(value), sort_keys=False, allow_unicode=True, width=100)


def _plain(value: Any) -> Any:
    """Mappings and sequences as dicts and lists, which is all that YAML's safe dumper knows."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
