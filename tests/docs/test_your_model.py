"""docs/your-model.md: what is saved there is fetched by the recipe beside it, and prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from resprout import recipe, sources
from resprout.errors import ResproutError

PAGE = Path(__file__).parents[2] / "docs" / "your-model.md"


def blocks() -> list[tuple[int, str, str]]:
    """The line, the language and the text of each block."""
    page = PAGE.read_text()
    found = re.finditer(r"^```(\w+)\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    return [(page[: block.start(2)].count("\n"), block[1], block[2]) for block in found]


def printed_by_fetching(section: dict[str, Any], folder: Path) -> list[str]:
    try:
        teacher = sources.fetch(recipe.section("teacher", section), base=folder)
    except ResproutError as error:
        return f"error: {error}".splitlines()
    return list(teacher.notes)


@pytest.mark.slow
def test_every_block_of_the_page_runs_and_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what the page saves stays out of the repository
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    printed: list[str] = []
    for line, language, text in blocks():
        if file := re.match(r"# (\w+\.py)\n", text):
            (tmp_path / file[1]).write_text(text)
        elif language == "python":
            assert not any(said.startswith("error:") for said in printed), printed  # the page says so of each that is
            exec(compile("\n" * line + text, str(PAGE), "exec"), names)
        elif language == "text":
            assert set(text.splitlines()) <= set(printed), printed
            printed = []
        elif "://" not in text:  # there is no network here
            printed = printed_by_fetching(yaml.safe_load(text)["teacher"], tmp_path)
    assert not any(said.startswith("error:") for said in printed), printed


def test_the_recipes_of_the_page_are_short() -> None:
    recipes = [text for _, language, text in blocks() if language == "yaml"]
    assert len(recipes) > 10
    assert max(text.count("\n") for text in recipes) <= 10
