"""What an evaluation says: the rows of its table, and one honest sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resprout.doubts import doubt_about
from resprout.types import Evaluation, ModelScore

LABELS = {"repaired": "BatchNorm repaired"}

NEGLIGIBLE = 5
"""Tenths of a point: what pruning cost below this is not worth dividing by."""
ALIKE = 0.5
"""The agreement below which two networks of the same accuracy are not said to be level."""


@dataclass(frozen=True)
class SummaryRow:
    """One network's line in the table that the command line and the report show.

    Args:
        name: as in `ModelScore`.
        label: what people read.
        top1: in [0, 1]; None without labelled data.
        agreement: with the teacher on held-out dreams and their blends, in [0, 1]; None without any, and for the
            teacher itself.
    """

    name: str
    label: str
    top1: float | None
    agreement: float | None


def summary_rows(evaluation: Evaluation) -> tuple[SummaryRow, ...]:
    """One row per network, in the evaluation's order: the teacher first."""
    return tuple(
        SummaryRow(
            name=score.name,
            label=LABELS.get(score.name, score.name),
            top1=score.top1,
            agreement=None if score.name == "teacher" else score.agreement,
        )
        for score in evaluation.scores
    )


def percent(share: float | None) -> str:
    """`92.1 %` for 0.921; nothing for None."""
    return "" if share is None else f"{_tenths(share) / 10:.1f} %"


def table(evaluation: Evaluation) -> list[str]:
    """Every network's top-1 and agreement; a column that nothing was measured for is left out."""
    rows = summary_rows(evaluation)
    columns = [("", [row.label for row in rows])]
    if any(row.top1 is not None for row in rows):
        columns.append(("top-1", [percent(row.top1) for row in rows]))
    if any(row.agreement is not None for row in rows):
        on = f"agrees with the teacher on held-out {evaluation.held_out_kind}"
        columns.append((on, [percent(row.agreement) for row in rows]))
    padded = [(f"{title:<{width}}", [f"{cell:<{width}}" for cell in cells]) for title, cells, width in _widths(columns)]
    return ["   ".join(cells).rstrip() for cells in zip(*([title, *column] for title, column in padded), strict=True)]


def _widths(columns: list[tuple[str, list[str]]]) -> list[tuple[str, list[str], int]]:
    return [(title, cells, max(map(len, [title, *cells]))) for title, cells in columns]


def summary_of(evaluation: Evaluation) -> dict[str, Any]:
    """What people are told of an evaluation, as JSON: `table` and `verdict`; and `fitting_class_names`, in the order of
    the teacher's logits, where its classes are in another one.
    """
    doubt = doubt_about(evaluation)
    fitting = {"fitting_class_names": list(doubt.class_names)} if doubt and doubt.class_names else {}
    return {"table": table(evaluation), "verdict": verdict(evaluation), **fitting}


def verdict(evaluation: Evaluation) -> str:
    """What became of the accuracy that pruning cost, in one sentence.

    It is about top-1 where there is labelled data, otherwise about agreement with the teacher on held-out dreams, or on
    the real images that took their place.
    Points are differences of the percentages that the table shows, so that a reader can check them there. Where the
    teacher's own accuracy cannot be believed, it says why instead.
    """
    if (doubt := doubt_about(evaluation)) is not None:
        return doubt.text
    names = {score.name for score in evaluation.scores}
    if not {"pruned", "recovered"} <= names:
        return "There is nothing to compare: a pruned and a recovered network were not both evaluated."
    if evaluation.score("teacher").top1 is not None:
        return _compare(evaluation, lambda score: score.top1, "")
    if evaluation.score("teacher").agreement is not None:
        return _compare(evaluation, lambda score: score.agreement, f" of {agreement_label(evaluation)}")
    return f"Nothing was measured: there was no labelled test set, and no {evaluation.held_out_kind} were held out."


def agreement_label(evaluation: Evaluation) -> str:
    """What agreement is, and on what it was measured."""
    return f"agreement with the teacher on held-out {evaluation.held_out_kind}"


def _compare(evaluation: Evaluation, measure: Callable[[ModelScore], float | None], kind: str) -> str:
    shares = {score.name: measure(score) for score in evaluation.scores}
    at = {name: _tenths(share) for name, share in shares.items() if share is not None}
    lost, regained = at["teacher"] - at["pruned"], at["recovered"] - at["pruned"]
    if lost < NEGLIGIBLE:
        return _little_lost(lost, at["recovered"] - at["teacher"], kind, evaluation)
    sentence = _regained(lost, regained, kind)
    repaired = at.get("repaired", at["recovered"]) - at["pruned"]
    if repaired > max(regained, 0):
        sentence += f", while re-estimating BatchNorm alone brought back {_points(repaired)}"
    return f"{sentence}; {_read(evaluation)}."


def _read(evaluation: Evaluation) -> str:
    return "real images were learnt from, not dreams" if evaluation.images_source else "training was given dreams only"


def _regained(lost: int, regained: int, kind: str) -> str:
    if regained < 0:
        return (
            f"Recovery made it worse: pruning cost {_points(lost)} points{kind}, and recovery {_points(-regained)} more"
        )
    if regained == 0:
        return f"None of the {_points(lost)} points{kind} that pruning cost are back"
    if regained > lost:
        return f"All {_points(lost)} points{kind} that pruning cost are back, and {_points(regained - lost)} more"
    if regained == lost:
        return f"All {_points(lost)} points{kind} that pruning cost are back"
    return f"{_points(regained)} of the {_points(lost)} points{kind} that pruning cost are back"


def _little_lost(lost: int, above_teacher: int, kind: str, evaluation: Evaluation) -> str:
    agreement = evaluation.score("recovered").agreement
    if not kind and agreement is not None and agreement < ALIKE:
        return (
            f"Top-1 hardly fell, and yet the recovered network agrees with its teacher on only {percent(agreement)} of "
            f"held-out {evaluation.held_out_kind}: they do not answer alike; {_read(evaluation)}."
        )
    cost = "nothing" if lost <= 0 else f"next to nothing ({_points(lost)} points{kind})"
    measured = f" (measured as {agreement_label(evaluation)})" if kind and lost <= 0 else ""
    if above_teacher == 0:
        end = "level with the teacher"
    else:
        end = f"{_points(abs(above_teacher))} points {'above' if above_teacher > 0 else 'below'} the teacher"
    return f"Pruning cost {cost}{measured}, and the recovered network ends {end}; {_read(evaluation)}."


def _tenths(share: float) -> int:
    """A share in [0, 1] in tenths of a percent, as the table rounds it."""
    return round(share * 1000)


def _points(tenths: int) -> str:
    return f"{tenths / 10:.1f}"
