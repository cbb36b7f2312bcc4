"""docs/recipes.md says what resprout/recipe/ says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

from resprout import recipe

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recipes.md"


def test_the_field_tables_are_those_of_the_recipe():
    script = runpy.run_path(str(ROOT / "docs" / "recipe_reference.py"))

    assert script["page"](PAGE.read_text()) == PAGE.read_text(), "run: python docs/recipe_reference.py"


@pytest.mark.parametrize(
    ("document", "block"),
    [
        pytest.param(path.name, block, id=f"{path.name}-{number}")
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), flags=re.DOTALL))
    ],
)
def test_every_recipe_in_the_documents_is_one(document: str, block: str):
    fields = yaml.safe_load(block)

    for name, section in fields.items():
        recipe.section(name, section)
