"""docs/families.md is what the last sweep found, nothing in it fails, and some networks still do as it says."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import timm

HALF = 0


@pytest.mark.slow
def test_a_network_does_what_the_table_says(family: dict[str, Any], script: Callable[[str], ModuleType]) -> None:
    families = script("benchmarks/families.py")
    assert families.tried(families.Family(**family)).result == family["result"]


def test_the_page_is_what_the_sweep_found(script: Callable[[str], ModuleType]) -> None:
    families = script("benchmarks/families.py")
    found = families.read()
    assert families.PAGE.read_text() == families.table(found), "run python benchmarks/families.py --table"
    assert f"timm {timm.__version__} " in families.PAGE.read_text(), "run python benchmarks/families.py --again ''"


def test_no_family_fails(script: Callable[[str], ModuleType]) -> None:
    families = script("benchmarks/families.py")
    assert [family for family in families.read() if family.result.startswith("fails")] == []
