from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from resprout.confusion import as_matrix
from resprout.report.axes import Axis, axis_for
from resprout.report.charts import line_chart, line_path, number, recovery_charts, synthesis_charts
from resprout.report.confusion import confused_pairs, confusions, heat_map, losing_classes
from resprout.report.layers import layer_sparsities
from resprout.report.provenance import arcs, chain
from resprout.types import PruningMask

MakeRun = Callable[..., dict[str, Any]]
NAMES = ("ant", "bee", "cat")
CONFUSION = torch.tensor([[8, 2, 0], [1, 5, 4], [0, 0, 10]])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
@example([1.0, 2.225073858507e-311])
@example([5e-324, 1.0])
def test_every_value_and_every_tick_lies_within_its_axis(values: list[float]) -> None:
    axis = axis_for(values)
    for value in values:
        assert -1e-6 <= axis.position(value) <= 100 + 1e-6
    for tick in axis.ticks(number):
        assert -0.01 <= tick.position <= 100.01


@given(st.floats(1e-9, 1e3), st.floats(1.1, 1e9))
def test_an_axis_has_a_few_round_ticks(low: float, ratio: float) -> None:
    ticks = axis_for([low, low * ratio]).ticks(number)
    assert 1 <= len(ticks) <= 8
    assert [tick.position for tick in ticks] == sorted(tick.position for tick in ticks)


def test_a_wide_range_is_logarithmic_and_a_range_with_zero_is_not() -> None:
    assert axis_for([0.01, 10]).logarithmic
    assert not axis_for([0.0, 10]).logarithmic
    assert not axis_for([1, 10]).logarithmic
    assert Axis(1, 100, logarithmic=True).position(10) == pytest.approx(50)


def test_a_share_never_leaves_0_to_100_percent() -> None:
    axis = axis_for([0.01, 0.99], floor=0, ceiling=1)
    assert (axis.low, axis.high) == (0, 1)


def test_a_line_runs_from_the_left_edge_to_the_right_one_and_breaks_where_there_is_no_value() -> None:
    path = line_path([0.0, math.nan, 5.0, 10.0], Axis(1, 4), Axis(0, 10))
    assert path == "M0.00 100.00M66.67 50.00L100.00 0.00"
    assert line_path([5.0], Axis(0, 2), Axis(0, 10)) == "M50.00 50.00h0"


def test_a_long_curve_is_thinned_but_keeps_its_ends() -> None:
    path = line_path([float(i) for i in range(5000)], Axis(1, 5000), Axis(0, 4999))
    points = re.findall(r"[ML]([\d.]+) ([\d.]+)", path)
    assert len(points) <= 402
    assert (points[0], points[-1]) == (("0.00", "100.00"), ("100.00", "0.00"))


def test_every_curve_is_drawn_once_in_a_chart_of_its_own_unit() -> None:
    curve = torch.tensor([1.0, 0.5])
    names = ("train_kl", "held_out_kl", "agreement", "learning_rate", "train_features", "a new one")
    charts = {chart.title: chart for chart in recovery_charts(dict.fromkeys(names, curve))}
    assert {title: len(chart.lines) for title, chart in charts.items()} == {
        "Agreement with the teacher": 1,
        "KL divergence to the teacher": 2,
        "Other losses": 2,
        "Learning rate": 1,
    }
    drawn = synthesis_charts({"bn": curve, "ce": curve, "tv": curve})
    assert [[line.label for line in chart.lines] for chart in drawn] == [
        ["BatchNorm distance"],
        ["cross-entropy", "total variation"],
    ]


def test_a_chart_without_a_finite_value_is_left_out() -> None:
    assert line_chart("empty", {}, note="") is None
    assert line_chart("lost", {"loss": torch.tensor([math.nan, math.inf])}, note="") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.25, "−0.25"), (0.00001, "0.00001"), (1234.0, "1,234"), (0.0123456, "0.0123"), (1e-9, "1e−09")],
)
def test_numbers_are_short_and_without_an_exponent_where_it_can_be_helped(value: float, text: str) -> None:
    assert number(value) == text


def counted(matrix: Tensor) -> Tensor:
    """The pairs of a confusion matrix that occur."""
    pairs = matrix.nonzero()
    return torch.cat([pairs, matrix[matrix != 0][:, None]], dim=1)


def test_a_heat_map_is_in_percent_of_the_label_and_shades_errors_by_the_largest() -> None:
    rows = heat_map(CONFUSION, NAMES)
    assert [[cell.text for cell in row] for row in rows] == [["80", "20", ""], ["10", "50", "40"], ["", "", "100"]]
    assert [[cell.strength for cell in row] for row in rows] == [[0.8, 0.5, 0], [0.25, 0.5, 1], [0, 0, 1]]
    assert [cell.hit for cell in rows[1]] == [False, True, False]
    assert rows[1][2].title == "bee taken for cat: 4 (40.0 %)"


def test_pairs_come_most_frequent_first() -> None:
    pairs = confused_pairs(counted(CONFUSION), NAMES)
    found = [(pair.label, pair.prediction, pair.count, pair.share) for pair in pairs]
    assert found == [("bee", "cat", 4, 0.4), ("ant", "bee", 2, 0.2), ("bee", "ant", 1, 0.1)]


def test_losing_classes_are_those_that_fell_and_the_worst_comes_first() -> None:
    teacher = torch.tensor([[9, 1, 0], [0, 9, 1], [1, 0, 9]])
    assert [(change.name, change.points) for change in losing_classes(counted(teacher), counted(CONFUSION), NAMES)] == [
        ("bee", -40.0),
        ("ant", -10.0),
    ]


def test_many_classes_give_pairs_and_few_a_heat_map(make_run: MakeRun) -> None:
    many, few = (confusions(make_run(num_classes=count)["evaluation"]) for count in (26, 25))
    assert many is not None
    assert few is not None
    assert (len(many.rows), len(few.rows), len(few.pairs)) == (0, 25, 0)
    assert many.pairs
    confusion = make_run(num_classes=26)["evaluation"].score("recovered").confusion
    matrix = as_matrix(confusion, 26)
    assert torch.equal(counted(matrix), confusion)
    assert many.errors == int(matrix.sum() - matrix.trace())


def test_a_class_without_test_images_is_no_error() -> None:
    confusion = torch.tensor([[4, 0], [0, 0]])
    assert [cell.text for cell in heat_map(confusion, ("a", "b"))[1]] == ["", ""]
    assert losing_classes(counted(confusion), counted(confusion), ("a", "b")) == ()


def test_layers_are_as_sparse_as_their_masks() -> None:
    keep = {"conv1.weight": torch.tensor([True, True, True, False]), "odd": torch.zeros(0, dtype=torch.bool)}
    assert [(x.name, x.total, x.kept, x.sparsity) for x in layer_sparsities(PruningMask(keep))] == [
        ("conv1", 4, 3, 0.25)
    ]


def test_the_chain_holds_each_artifact_once_after_its_inputs_under_the_name_nearest_the_report(
    make_run: MakeRun,
) -> None:
    steps = chain(make_run()["provenance"])
    assert [step.name for step in steps] == [
        "teacher",
        "statistics",
        "dreams",
        "pruned",
        "repaired",
        "recovered",
        "evaluation",
    ]
    assert all(parent < index for index, step in enumerate(steps) for parent in step.parents)
    assert [step.name for step in steps if step.is_source] == ["teacher"]
    assert len(arcs(steps)) == sum(len(step.parents) for step in steps)
    assert {steps[parent].name for parent in steps[4].parents} == {"teacher", "pruned", "dreams"}


def test_a_deep_chain_of_shared_inputs_is_walked_once() -> None:
    record: dict[str, Any] = {"name": "0", "kind": "teacher", "sha256": "0"}
    for index in range(1, 60):  # 2**60 paths
        record = {"name": str(index), "kind": "student", "sha256": str(index), "inputs": [record, record]}
    assert [step.name for step in chain(record)] == [str(index) for index in range(60)]


def test_a_record_that_has_no_digest_yet_is_the_end_of_the_chain() -> None:
    teacher = {"name": "teacher", "kind": "teacher", "sha256": "a"}
    steps = chain({"inputs": [teacher, teacher]})
    assert [(step.name, step.digest, step.parents) for step in steps] == [
        ("teacher", "a", ()),
        ("this evaluation", "", (0,)),
    ]
    assert chain({}) == ()
