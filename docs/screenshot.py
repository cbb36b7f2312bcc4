"""Take the picture of a report's first screen: `python docs/screenshot.py runs/demo-HASH/report.html`.

Needs chromium and chromedriver.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PICTURE = Path(__file__).parent / "images" / "report.png"
SCREEN = {"width": 1100, "height": 525, "deviceScaleFactor": 1, "mobile": False}


def take(report: Path, picture: Path) -> None:
    """Open a report and save what is seen without scrolling."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    # --no-sandbox: Chromium refuses to start as root without it
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SCREEN)
        browser.get(report.resolve().as_uri())
        browser.save_screenshot(str(picture))
    finally:
        browser.quit()


if __name__ == "__main__":
    take(Path(sys.argv[1]), PICTURE)
