"""A recipe's YAML: nothing dropped without a word, nothing read as something else, and refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import recipes
from resprout import recipe
from resprout.errors import RecipeError
from resprout.recipe.reading import parsed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("teacher: {source: x}\npruning: {method: lamp}\npruning: {exclude: []}", "line 3: pruning stands twice"),
        ("teacher: {source: x, source: y}", "line 1: source stands twice, first in line 1"),
        ("teacher:\n  source: x\n  'source': y", "line 3: source stands twice, first in line 2"),
        ("teacher: {source: x}\nplacement:\n  gpu_tolerations:\n  - {key: a, key: b}", "line 4: key stands twice"),
        ("teacher: {source: x, arguments: &a {width: 8, self: *a}}", "line 1: an anchor holds itself"),
        ("teacher:\n\tsource: x", "not YAML, line 2, column 1: found character '\\t'"),
        ("teacher: {source: !env HOME}", "could not determine a constructor for the tag '!env'"),
        ("teacher: {source: {{ home }}}", "put text that starts with { or [ in quotes"),
        ("teacher: {source: x}\n---\nteacher: {source: y}", "keep one recipe in a file"),
        ("teacher: {source: x}\nseed: !!int many", "not YAML: invalid literal for int()"),
        (3000 * "[", "nested too deeply"),
        ("teacher: {source: \x00}", "special characters are not allowed"),
    ],
)
def test_what_yaml_would_swallow_is_refused_with_its_place(tmp_path: Path, text: str, told: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)

    with pytest.raises(RecipeError) as refused:
        recipe.load(path)

    assert told in str(refused.value)
    assert str(refused.value).startswith("recipe mine.yaml")


def test_anchors_and_merges_are_fine(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "teacher: {source: x, arguments: {a: &sizes {width: 8, depth: 2}, b: {<<: *sizes, width: 4}, c: *sizes}}"
    )

    arguments = recipe.load(path).teacher.arguments

    assert arguments == {"a": {"width": 8, "depth": 2}, "b": {"width": 4, "depth": 2}, "c": {"width": 8, "depth": 2}}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("1e-3", 0.001),
        ("5E4", 5e4),
        ("-.5", -0.5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("010", 10),
        ("12:30", "12:30"),
        ("2026-02-30", "2026-02-30"),
        ("2026-02-03", "2026-02-03"),
        ("1.2.3", "1.2.3"),
        ("no", False),
        ("'no'", "no"),
        ("~", None),
    ],
)
def test_values_are_what_was_typed(typed: str, meant: Any):
    assert parsed(typed, "here") == meant


@pytest.mark.parametrize("text", ["recovery.learning_rate=1e-3", "recovery={learning_rate: 1e-3}"])
def test_a_change_is_read_as_a_recipe_is(text: str):
    given = recipe.Recipe(teacher=recipe.TeacherSection(source="x"))

    assert recipes.override(given, [text]).recovery == recipe.DistillationSection(learning_rate=0.001)
    with pytest.raises(RecipeError, match="epochs stands twice"):
        recipes.override(given, ["recovery={epochs: 3, epochs: 4}"])


def test_what_is_no_file_of_text_is_refused_in_three_lines(tmp_path: Path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))

    for path in (tmp_path / "folder.yaml", tmp_path / "binary.yaml", tmp_path / "binary.yaml" / "deeper.yaml"):
        with pytest.raises(RecipeError) as refused:
            recipe.load(path)
        assert [line.split(":")[0] for line in str(refused.value).splitlines()[1:]] == ["  why", "  now"]
        assert str(path) in refused.value.what


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfteacher: {source: x}\r\nseed: 3\r\n")

    assert recipe.load(path).seed == 3
