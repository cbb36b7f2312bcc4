"""The page of a sensitivity scan, alone and as a section of the report."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from resprout.report import render, render_sensitivity
from resprout.report.sensitivity import most_sensitive, scan_of
from resprout.types import InputSpec, ModelInfo, Sensitivity

INFO = ModelInfo("resnet20", 10, InputSpec((3, 32, 32), (0.5,) * 3, (0.5,) * 3), tuple("0123456789"))


def scanned(num_layers: int = 22) -> Sensitivity:
    generator = torch.Generator().manual_seed(0)
    agreement = torch.rand(num_layers, 5, generator=generator, dtype=torch.float64).sort(1, descending=True).values
    layers = tuple(f"layer{index}.conv<1>.weight" for index in range(num_layers))
    sizes = tuple(100 * (index + 1) for index in range(num_layers))
    return Sensitivity(
        layers,
        sizes,
        (0.5, 0.75, 0.9, 0.95, 0.98),
        agreement,
        1 - agreement,
        num_repair_dreams=256,
        num_held_out_dreams=128,
    )


class Cells(HTMLParser):
    """The text of every cell of the heat map, and whether all tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._style = ""
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "path", "img", "circle", "br"}:
            self._open.append(tag)
        self._style = (dict(attrs).get("style") or "") if tag == "td" else ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing opens."""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "td" and "--v" in self._style:
            self.found.append((data, self._style))


def test_every_figure_is_on_the_page_and_the_worst_is_darkest() -> None:
    sensitivity = scanned()
    cells = Cells(render_sensitivity(sensitivity, info=INFO, inputs={"teacher": "ab" * 32})).found
    assert [text for text, _ in cells] == [f"{100 * float(value):.0f}" for value in sensitivity.agreement.flatten()]
    strengths = [float(style.removeprefix("--v:")) for _, style in cells]
    assert strengths.index(max(strengths)) == int(sensitivity.agreement.flatten().argmin())
    assert max(strengths) == 1
    assert min(strengths) >= 0
    mended = Cells(render_sensitivity(replace(sensitivity, whole_agreement=0.9), info=INFO)).found
    shaded = [float(style.removeprefix("--v:")) for _, style in mended]
    assert max(shaded) == 1
    agreement = sensitivity.agreement.flatten().tolist()
    assert all((strength == 0) == (value > 0.8996) for strength, value in zip(shaded, agreement, strict=True))


@pytest.mark.parametrize("with_top1", [True, False])
def test_the_page_asks_for_nothing_names_the_worst_first_and_escapes_names(with_top1: bool) -> None:
    sensitivity = scanned()
    if with_top1:
        sensitivity = replace(sensitivity, top1=sensitivity.agreement, teacher_top1=0.92)
    page = render_sensitivity(sensitivity, info=INFO, inputs={"teacher": "ab" * 32})
    worst = most_sensitive(sensitivity)
    assert re.search(r"<h1[^>]*>" + re.escape(worst[0].name.replace("<", "&lt;").replace(">", "&gt;")), page)
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "conv<1>" not in page
    assert ("Top-1 on labelled images" in page) is with_top1
    assert "ab" * 32 in page
    assert page == render_sensitivity(sensitivity, info=INFO, inputs={"teacher": "ab" * 32})


def test_lines_are_told_apart_without_their_last_value() -> None:
    scan = scan_of(scanned())
    assert scan is not None
    assert [line.style for line in scan.charts[0].lines] == [0, 1, 2, 3, 4]
    assert [line.label for line in scan.charts[0].lines] == [
        "50 % gone",
        "75 % gone",
        "90 % gone",
        "95 % gone",
        "98 % gone",
    ]
    assert {line.last for line in scan.charts[0].lines} == {""}
    shares = [layer.share for layer in scan.most_sensitive]
    assert len(shares) == 5
    assert all(0 < share < 1 for share in shares)


def test_a_single_layer_and_one_that_loses_nothing_have_a_page_too() -> None:
    whole = replace(
        scanned(1),
        agreement=torch.ones(1, 5, dtype=torch.float64),
        kl_divergence=torch.zeros(1, 5, dtype=torch.float64),
    )
    assert "0.0" in render_sensitivity(whole, info=INFO)


def test_a_heat_map_of_many_layers_is_shown_on_demand() -> None:
    few, many = (render_sensitivity(scanned(count), info=INFO) for count in (40, 41))
    assert "<details>" not in few
    assert "All 41 layers" in many
    assert len(Cells(many).found) == 41 * 5


def test_the_report_has_the_section_where_there_is_a_scan(make_run: Callable[..., dict[str, Any]]) -> None:
    assert "What each layer can spare" not in render(**make_run())
    page = render(**make_run(), sensitivity=scanned())
    assert "What each layer can spare" in page
    assert len(Cells(page).found) >= 22 * 5
