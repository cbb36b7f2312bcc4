"""The other half of the networks that are tried, for another process."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

HALF = 1


@pytest.mark.slow
def test_a_network_does_what_the_table_says(family: dict[str, Any], script: Callable[[str], ModuleType]) -> None:
    families = script("benchmarks/families.py")
    assert families.tried(families.Family(**family)).result == family["result"]
