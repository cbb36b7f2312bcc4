"""The report in a real browser: what a person sees, and what the browser complains about or asks for."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from resprout.report import render, render_sensitivity
from resprout.types import Sensitivity, SparsityChoice, Trial

pytestmark = pytest.mark.browser
PHONE, DESKTOP = (360, 740), (1280, 900)
Open = Callable[..., webdriver.Chrome]


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium: install the Debian packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # --no-sandbox: CI runs as root, where Chromium refuses to start without it
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def pages(make_run: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    long = tuple(f"a_class_name_without_a_space_that_is_far_too_long_{index}" for index in range(1000))
    choice = SparsityChoice(0.85, 0.9, (Trial(0.95, 0.0, 2.0), Trial(0.9, 0.6, 1.0), Trial(0.85, 0.9, 0.1)))
    runs = {
        "cifar": make_run(),
        "imagenet": make_run(num_classes=1000, class_names=long, size=224, num_layers=120, num_dreams=80),
        "no data": make_run(labelled=False),
        "25 classes": make_run(class_names=long[:25], num_layers=5) | {"title": "x" * 100, "choice": choice},
    }
    folder = tmp_path_factory.mktemp("report")
    for name, run in runs.items():
        (folder / f"{name}.html").write_text(render(**run), encoding="utf-8")
    layers = tuple(f"{name}.weight" for name in long[:60])
    scanned = torch.rand(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scan = Sensitivity(layers, (9,) * 60, (0.5, 0.75, 0.9, 0.95, 0.98), scanned, scanned)
    page = render_sensitivity(scan, info=runs["cifar"]["info"], inputs={"teacher": "0" * 64})
    (folder / "scan.html").write_text(page, encoding="utf-8")
    framed = html.escape((folder / "cifar.html").read_text(encoding="utf-8"))
    (folder / "framed.html").write_text(
        '<!doctype html><link rel="icon" href="data:,">'
        f'<iframe sandbox width="340" height="600" srcdoc="{framed}"></iframe>',
        encoding="utf-8",
    )
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def open_page(browser: webdriver.Chrome, pages: dict[str, Path]) -> Open:
    def open_it(name: str, size: tuple[int, int] = PHONE, scheme: str = "light", media: str = "") -> webdriver.Chrome:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get_log("browser")
        browser.get_log("performance")
        browser.get(pages[name].as_uri())
        return browser

    return open_it


def requests(browser: webdriver.Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("name", ["cifar", "imagenet", "no data", "scan", "framed"])
def test_the_browser_has_nothing_to_complain_about_and_nothing_to_fetch(
    open_page: Open, pages: dict[str, Path], name: str
) -> None:
    page = open_page(name)
    assert page.get_log("browser") == []
    asked = requests(page)
    assert [url for url in asked if not url.startswith(("data:", "about:srcdoc"))] == [pages[name].as_uri()]


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", ["cifar", "imagenet", "no data", "scan", "25 classes"])
def test_the_page_never_scrolls_sideways(open_page: Open, name: str, size: tuple[int, int]) -> None:
    page = open_page(name, size)
    page.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
    width, room = page.execute_script(
        "return [document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"
    )
    assert size[0] - 20 < room <= size[0]  # a scroll bar takes 15 on a desktop
    assert width <= room


@pytest.mark.parametrize("name", ["cifar", "imagenet", "no data"])
def test_one_phone_screen_holds_the_verdict_the_bars_and_dreams(open_page: Open, name: str) -> None:
    page = open_page(name)
    bottoms = [
        page.execute_script("return document.querySelector(arguments[0]).getBoundingClientRect().bottom", selector)
        for selector in ("#verdict", ".bars", ".dreams img")
    ]
    assert bottoms == sorted(bottoms)
    assert bottoms[-1] <= PHONE[1]
    assert len(page.find_elements(By.CSS_SELECTOR, ".bars > li")) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_in_both_schemes(open_page: Open, scheme: str) -> None:
    page = open_page("cifar", scheme=scheme)
    ground = colour(page, "body", "backgroundColor")
    assert (luminance(ground) < 0.1) is (scheme == "dark")
    # WCAG 2.2: 4.5 for text, 3 for graphics
    for selector in ("body", ".quiet", ".tick", "th"):
        assert contrast(colour(page, selector, "color"), ground) >= 4.5
    for selector in (".line.s0", ".line.s1", ".made", ".source"):
        assert contrast(colour(page, selector, "stroke"), ground) >= 3
    for row in ("teacher", "pruned", "repaired", "recovered"):
        assert contrast(colour(page, f".bars .{row} .bar i", "backgroundColor"), ground) >= 3


def test_print_is_dark_on_white_with_every_detail_open(open_page: Open) -> None:
    page = open_page("cifar", DESKTOP, scheme="dark", media="print")
    assert luminance(colour(page, "body", "backgroundColor")) == 1
    visible = page.execute_script(
        "return [...document.querySelectorAll('details pre')].map(e => e.getBoundingClientRect().height > 0)"
    )
    assert visible
    assert all(visible)


def test_small_dreams_keep_their_pixels(open_page: Open) -> None:
    rendering = "return getComputedStyle(document.querySelector('.dreams img')).imageRendering"
    assert open_page("cifar").execute_script(rendering) == "pixelated"
    assert open_page("imagenet").execute_script(rendering) == "auto"


def test_the_report_shows_itself_inside_a_sandboxed_frame(open_page: Open) -> None:
    page = open_page("framed")
    page.switch_to.frame(0)
    try:
        assert page.find_element(By.ID, "verdict").is_displayed()
        assert page.execute_script("return document.querySelector('.dreams img').naturalWidth") == 32
    finally:
        page.switch_to.default_content()


def colour(page: webdriver.Chrome, selector: str, name: str) -> tuple[int, int, int]:
    """The computed colour of the first element that matches, as 8-bit sRGB."""
    text = page.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, name
    )
    red, green, blue = text.removeprefix("rgb(").removesuffix(")").split(",")
    return int(red), int(green), int(blue)


def luminance(rgb: tuple[int, int, int]) -> float:
    """WCAG 2.2's relative luminance, in [0, 1]."""
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """WCAG 2.2's contrast ratio, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
