"""Latency ratios against a clock that is set by hand: no test depends on how fast this machine is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import cycle

import pytest
import torch

from resprout import latency
from resprout.evaluation import evaluate
from resprout.latency import PAIRS, WARM_UP, latency_ratio, measure_latency
from resprout.types import DreamSet, Student, Teacher


class Watch:
    """A clock that runs only while something works, for as long as it is told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.worked: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            self.worked.append(name)
            self.now += next(seconds)

        return run


def test_a_network_that_takes_twice_as_long_has_a_ratio_of_two():
    watch = Watch()
    student, teacher = watch.work("student", cycle([0.5])), watch.work("teacher", cycle([0.25]))
    assert latency_ratio(student, teacher, clock=watch) == 2
    assert latency_ratio(teacher, student, clock=watch) == 0.5
    assert latency_ratio(teacher, teacher, clock=watch) == 1


def test_the_ratio_is_the_median_of_pairs_not_a_ratio_of_medians():
    watch = Watch()
    student = watch.work("student", iter([1.0, 6.0, 8.0]))
    teacher = watch.work("teacher", iter([1.0, 2.0, 8.0]))
    assert latency_ratio(student, teacher, pairs=3, warm_up=0, clock=watch) == 1  # of 1, 3, 1; medians give 3


def test_neither_an_interruption_nor_a_machine_that_slows_down_changes_the_ratio():
    watch = Watch()
    drift = [1.0 + index / 8 for index in range(21)]
    student = [1.25 * seconds for seconds in drift]
    student[3] *= 64
    ratio = latency_ratio(
        watch.work("student", iter(student)), watch.work("teacher", iter(drift)), pairs=21, warm_up=0, clock=watch
    )
    assert ratio == 1.25


def test_warm_up_runs_are_not_timed_and_who_is_first_alternates():
    watch = Watch()
    student = watch.work("student", iter([99.0, 99.0, 3.0, 3.0]))
    teacher = watch.work("teacher", iter([1.0, 1.0, 2.0, 2.0]))
    assert latency_ratio(student, teacher, pairs=2, warm_up=2, clock=watch) == 1.5
    assert watch.worked[4:] == ["teacher", "student", "student", "teacher"]


def test_both_networks_see_the_same_batch_equally_often_and_are_left_as_they_were(
    tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
):
    student = copy.deepcopy(tiny_teacher.network)
    before = copy.deepcopy([network.state_dict() for network in (student, tiny_teacher.network)])
    seen: list[torch.Tensor] = []

    def spying(network: torch.nn.Module, *how: object) -> Callable[[torch.Tensor], None]:
        return lambda images: seen.append(images)

    monkeypatch.setattr(latency, "frozen_copy", spying)
    measured = measure_latency(student, tiny_teacher.network, (3, 16, 16), batch_size=5)

    assert (measured.batch_size, measured.pairs, measured.ratio > 0) == (5, PAIRS, True)
    assert len(seen) == 2 * (PAIRS + WARM_UP)
    assert {id(images) for images in seen} == {id(seen[0])}
    assert seen[0].shape == (5, 3, 16, 16)
    for network, state in zip((student, tiny_teacher.network), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("asked", "expected"), [(None, "meta"), (torch.device("cpu"), "cpu")])
def test_both_networks_and_the_images_are_on_the_device_that_is_asked_for(
    tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch, asked: torch.device | None, expected: str
):
    used: list[str] = []

    def spying(network: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> Callable[[torch.Tensor], None]:
        used.append(device.type)
        return lambda images: used.append(images.device.type)

    monkeypatch.setattr(latency, "frozen_copy", spying)
    monkeypatch.setattr(latency, "best_device", lambda: torch.device("meta"))
    network = tiny_teacher.network
    assert measure_latency(network, network, (3, 16, 16), batch_size=5, device=asked).device == expected
    assert used == [expected] * 2 * (1 + PAIRS + WARM_UP)


def test_latency_is_measured_only_where_it_is_asked_for(
    tiny_teacher: Teacher, tiny_student: Student, tiny_dreams: DreamSet
):
    students = {"recovered": tiny_student}
    assert evaluate(tiny_teacher, students, tiny_dreams).latency is None
    measured = evaluate(tiny_teacher, students, tiny_dreams, latency_batch_size=2).latency
    assert measured is not None
    assert measured.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert measured.ratio > 0
    with pytest.raises(ValueError, match="no student 'recovered'"):
        evaluate(tiny_teacher, {"pruned": tiny_student}, tiny_dreams, latency_batch_size=2)
