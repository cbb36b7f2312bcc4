from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resprout import __version__
from resprout.evaluation import percent, verdict
from resprout.report import compact, render
from resprout.types import DreamSet, InputSpec, PruningMask

MakeRun = Callable[..., dict[str, Any]]
VOID = {"meta", "link", "img", "br", "path", "circle"}
MEGABYTE = 1 << 20


class Page(HTMLParser):
    """A page's elements, text and table rows; refuses a page whose tags do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text.append(data.replace("\N{NO-BREAK SPACE}", " "))
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += self.text[-1]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def pictures(html: str) -> list[np.ndarray]:
    encoded = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in encoded]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("num_held_out", [40, 0])
def test_every_kind_of_run_has_a_report_that_starts_with_its_verdict(
    make_run: MakeRun, labelled: bool, num_held_out: int
) -> None:
    run = make_run(labelled=labelled, num_held_out=num_held_out)
    page = Page(render(**run))
    assert page.words.index(run["verdict"]) < page.words.index("Scores and costs")
    assert ("Confusion matrix" in page.words) is labelled
    assert ("No labelled image." in page.words) is not labelled
    assert ("set synthesis.num_held_out above 0" in page.words) is (not labelled and not num_held_out)


@pytest.mark.parametrize("labelled", [True, False])
def test_real_images_are_nowhere_called_dreams_nor_the_run_data_free(make_run: MakeRun, labelled: bool) -> None:
    run = make_run(labelled=labelled)
    source = "s3://bucket/train"
    run["dreams"] = replace(run["dreams"], source=source, curves={})
    run["evaluation"] = replace(run["evaluation"], images_source=source)
    run["verdict"] = verdict(run["evaluation"])
    run["recipe"] = {**run["recipe"], "synthesis": {"method": "images", "data": source}}
    run["provenance"] = _on_images(run["provenance"], source)
    words = Page(render(**run)).words
    for claim in ("held-out dreams", "dreams to learn from", "the dreams were", "dreams:", "Dreams", "training image"):
        assert claim not in words
    assert "160 real, labelled images to learn from: this result is not data-free" in words
    assert f"real images , learnt from in the place of dreams, from {source}" in words
    assert "held-out images and blends of them" in words
    assert "No labelled image." not in words


def _on_images(record: dict[str, Any], source: str) -> dict[str, Any]:
    if record["kind"] == "dreams":
        return {**record, "inputs": [], "about": {"source": source}}
    return {**record, "inputs": [_on_images(part, source) for part in record["inputs"]]}


def test_the_table_shows_the_scores_as_the_command_line_does(make_run: MakeRun) -> None:
    run = make_run()
    rows = {row[0]: row for row in Page(render(**run)).rows if row}
    for label, name in {"pruned": "pruned", "BatchNorm repaired": "repaired", "recovered": "recovered"}.items():
        score = run["evaluation"].score(name)
        assert rows[label][1:3] == [percent(score.top1), percent(score.agreement)]
        assert rows[label][4:9] == ["75.0 %", "270 k", "68.5 k", "40.6 M", "14.2 M"]
    assert rows["teacher"][2:4] == ["—", "—"]


def test_sizes_and_latency_are_shown_with_their_units_where_they_were_measured(make_run: MakeRun) -> None:
    run = make_run()
    page = Page(render(**run))
    rows = {row[0]: row for row in page.rows if row}
    assert rows["teacher"][9:] == ["1.06 MiB", "1.00 MiB"]
    assert rows["pruned"][9:] == ["—", "—"]
    assert rows["recovered"][9:] == ["1.10 MiB", "0.32 MiB"]
    assert "takes 1.02 times as long as the teacher for a batch of 8, in float32 on the CPU" in page.words
    assert "median of 51 pairs of runs" in page.words

    run["evaluation"] = replace(run["evaluation"], sizes={}, latency=None)
    page = Page(render(**run))
    assert "times as long as the teacher" not in page.words
    assert "MiB" not in page.words


def test_the_same_run_gives_the_same_bytes_and_a_time_only_when_it_is_given(make_run: MakeRun) -> None:
    first, second = render(**make_run()), render(**make_run())
    assert first == second
    assert f"Made by Resprout {__version__}</p>" in first
    assert f"Made by Resprout {__version__} · today</p>" in render(**make_run(), created="today")


def test_nothing_that_a_user_names_becomes_markup(make_run: MakeRun) -> None:
    evil = "<script>alert('\"')</script>"
    run = make_run(class_names=(evil, "b", "c"))
    layer = replace(run["statistics"].layers[0], name=evil)
    run["statistics"] = replace(run["statistics"], layers=(layer, *run["statistics"].layers[1:]))
    run["mask"] = PruningMask({evil: torch.tensor([True, False])})
    run["recovery_curves"] = {evil: torch.tensor([1.0, 2.0])}
    run["recipe"] = {"name": evil}
    run["provenance"] = {"name": evil, "kind": evil, "sha256": evil, "section": {evil: evil}, "about": {"source": evil}}
    run["info"] = replace(run["info"], architecture=evil)
    html = render(**run | {"title": evil, "verdict": evil, "created": evil})
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.words.count(evil) >= 12


@pytest.mark.parametrize("size", [32, 224])
def test_the_file_asks_nobody_for_anything_and_stays_small(make_run: MakeRun, size: int) -> None:
    html = render(**make_run(num_classes=1000 if size == 224 else 10, size=size, num_layers=20))
    for _, attributes in Page(html).elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "url(" not in html
    assert "@import" not in html
    assert len(html) < MEGABYTE


def test_dreams_are_shown_in_pixel_space_by_class_with_an_alternative_text(make_run: MakeRun) -> None:
    run = make_run()
    html = render(**run)
    dreams, spec = run["dreams"], run["info"].input
    expected = []
    for target in range(10):
        for image in dreams.images[dreams.targets == target][:4].double().numpy():
            pixels = image * np.array(spec.std)[:, None, None] + np.array(spec.mean)[:, None, None]
            expected.append(np.rint(pixels.clip(0, 1) * 255).transpose(1, 2, 0))
    shown = pictures(html)
    assert len(shown) == 40
    for picture, pixels in zip(shown, expected, strict=True):
        assert np.abs(picture.astype(int) - pixels).max() <= 1
    alternatives = [attributes["alt"] for tag, attributes in Page(html).elements if tag == "img"]
    assert alternatives[:2] == ["dream 1 of class airplane", "dream 2 of class airplane"]


def test_large_dreams_become_thumbnails_of_evenly_spread_classes(make_run: MakeRun) -> None:
    html = render(**make_run(num_classes=100, size=224, num_layers=3, num_dreams=100))
    shown = pictures(html)
    assert {picture.shape for picture in shown} == {(64, 64, 3)}
    assert len(shown) == 40
    assert 'class="dreams pixelated' not in html
    assert "of 40 classes, evenly spread" in Page(html).words


def test_grey_dreams_and_few_dreams_are_shown_too(make_run: MakeRun) -> None:
    run = make_run(num_held_out=0)
    run["info"] = replace(run["info"], input=InputSpec((1, 8, 8), (0.5,), (0.25,)))
    run["dreams"] = DreamSet(torch.zeros(3, 1, 8, 8).half(), torch.tensor([7, 2, 2]), 0, 10)
    html = render(**run)
    assert [picture.mean() for picture in pictures(html)] == [128, 128, 128]
    alternatives = [attributes["alt"] for tag, attributes in Page(html).elements if tag == "img"]
    assert alternatives == ["dream 1 of class bird", "dream 2 of class bird", "dream 1 of class horse"]
    assert "Synthesis" not in Page(html).words


def test_dreams_that_hardly_came_to_match_the_statistics_are_told_of(make_run: MakeRun) -> None:
    run = make_run()
    flat = torch.linspace(18.1, 17.7, 50)
    page = render(**{**run, "dreams": replace(run["dreams"], curves={"bn": flat})})
    assert "<p>The BatchNorm loss hardly fell (18.1 to 17.7)" in page
    assert "hardly fell" not in render(**run)


def test_what_a_folder_claims_of_itself_stands_beside_where_it_was(make_run: MakeRun) -> None:
    run = make_run()
    claimed = "claimed by the folder: torchvision://resnet50"
    teacher = run["provenance"]["inputs"][0]
    teacher["about"] = {**teacher["about"], "source": claimed}
    words = Page(render(**run, fetched_from="s3://bucket/net")).words
    assert f"teacher from s3://bucket/net , {claimed} weights sha256" in words
    teacher["about"]["source"] = "hf://owner/net@1"
    words = Page(render(**run, fetched_from="hf://owner/net@1")).words
    assert "teacher from hf://owner/net@1 weights sha256" in words


def test_no_dreams_no_curves_and_no_provenance_are_no_error(make_run: MakeRun) -> None:
    run = make_run(labelled=False, num_held_out=0)
    run["dreams"] = DreamSet(torch.zeros(0, 3, 32, 32).half(), torch.zeros(0, dtype=torch.int64), 0, 10)
    words = Page(render(**run | {"recovery_curves": {}, "provenance": {}})).words
    assert "it cannot say which bytes went in" in words
    assert "of 0 dreams" not in words


def test_the_chain_says_what_each_artifact_was_computed_on(make_run: MakeRun) -> None:
    words = Page(render(**make_run())).words
    assert "dreams · seed 0 · computed on NVIDIA L4" in words
    assert words.count("computed on") == 1, "where nothing is known, nothing is said"


def test_the_chain_says_what_was_finished_before_a_kill(make_run: MakeRun) -> None:
    words = Page(render(**make_run())).words
    assert "computed on NVIDIA L4 · went on from 2 checkpoints of its own run" in words
    assert words.count("went on from") == 1


def test_the_test_set_is_named_once_with_its_digest_and_is_no_input_of_the_model(make_run: MakeRun) -> None:
    run = make_run()
    step = {"name": "test_set", "kind": "test_set", "sha256": "e" * 64, "inputs": []}
    run["provenance"] = {**run["provenance"], "inputs": [*run["provenance"]["inputs"], step]}
    words = Page(render(**run)).words
    before_the_chain = words[words.index("From outside, this was read") : words.index("Full digests")]
    assert before_the_chain.count("e" * 64) == 1
    assert "labelled images from" in before_the_chain
    assert "test set" in before_the_chain
    assert "test_set" not in before_the_chain


def test_every_figure_is_said_in_words(make_run: MakeRun) -> None:
    elements = Page(render(**make_run())).elements
    labels = [attributes["aria-label"] for _, attributes in elements if attributes.get("role") == "img"]
    assert len(labels) == 8
    said = re.compile(r"Agreement with the teacher: held out ends at 96\.\d % after 60 epochs\.")
    assert any(said.fullmatch(label) for label in labels)
    hidden = [attributes.get("aria-hidden") for tag, attributes in elements if tag == "svg"]
    # a legend's samples are hidden with their list
    assert hidden.count("true") == len(labels) + 1


def test_many_layers_become_one_profile(make_run: MakeRun) -> None:
    words = Page(render(**make_run(num_layers=300, num_dreams=60))).words
    assert "Sparsity by layer" in words
    assert "All 301 layers" in words
    assert "Sparsity by layer" not in Page(render(**make_run(num_layers=30, num_dreams=60))).words


def test_the_recipe_is_shown_as_yaml_that_reads_back(make_run: MakeRun) -> None:
    import yaml

    run = make_run()
    html = render(**run)
    blocks = re.findall(r"<pre[^>]*>(.*?)</pre>", html, re.DOTALL)
    assert yaml.safe_load(blocks[-1]) == run["recipe"] | {"pruning": run["recipe"]["pruning"] | {"exclude": []}}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (432, "432"),
        (1000, "1 k"),
        (2304, "2.30 k"),
        (268_336, "268 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (40_551_040, "40.6 M"),
        (1_814_073_344, "1.81 G"),
        (3 * 10**15, "3000 T"),
    ],
)
def test_counts_have_three_digits_and_a_unit(count: int, text: str) -> None:
    assert compact(count).replace("\N{NO-BREAK SPACE}", " ") == text
