"""A recipe's YAML: nothing dropped without a word, nothing read as something else, and refused with its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import recipes
from resprout import recipe
from resprout.errors import RecipeError
from resprout.recipe import reading
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
        "teacher: {source: x, arguments: {a: &sizes [8, 2], b: *sizes}}\n"
        "synthesis: &counts {num_images: 64, num_held_out: 8}\n"
        "evaluation: {max_images: &few 4, batch_size: *few}\n"
        "placement: {gpu_node_selector: &on {zone: a, disk: fast}, gpu_tolerations: [{<<: *on, zone: b}, *on]}"
    )

    read = recipe.load(path)

    assert read.teacher.arguments == {"a": [8, 2], "b": [8, 2]}
    assert read.evaluation.batch_size == 4
    assert read.placement.gpu_tolerations == ({"zone": "b", "disk": "fast"}, {"zone": "a", "disk": "fast"})


@pytest.mark.parametrize("levels", [9, 60])
def test_aliases_stand_for_no_more_than_a_recipe_may_hold(tmp_path: Path, levels: int):
    lines = ["teacher:", "  source: x", "  arguments:", "    a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"    a{level}: &a{level} [{', '.join(9 * [f'*a{level - 1}'])}]")
    path = tmp_path / "mine.yaml"
    path.write_text("\n".join(lines))

    with pytest.raises(RecipeError, match=r"recipe mine\.yaml holds more than 50,000 values") as refused:
        recipe.load(path)

    assert refused.value.now


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"#" * (2**21 + 1), "holds more than 2,097,152 bytes"),
        (b"teacher: {source: x}\nseed: !!bool maybe", "is not YAML: 'maybe'"),
        (b"teacher: {source: x}\nseed: !!timestamp never", "is not YAML"),
        (b'teacher: {source: "a\\u202eb"}', "teacher.source: holds what cannot be shown"),
        (b'teacher: {source: "\\ud800"}', "teacher.source: holds what cannot be shown"),
        (b'teacher: {source: x, class_names: [a, "b\\e[31m"]}', "teacher.class_names.1: holds what cannot be shown"),
        (b'{"teacher\\u2028": {}}', "holds what cannot be shown"),
        (b"teacher: {source: x, class_names: [a, " + 257 * b"b" + b"]}", "name 1 has more than 256 characters"),
    ],
)
def test_what_no_recipe_holds_is_refused_soon(tmp_path: Path, content: bytes, told: str):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)

    with pytest.raises(RecipeError) as refused:
        recipe.load(path)

    assert told in str(refused.value)


def test_values_are_counted_while_they_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "MAX_VALUES", 1_000)
    with pytest.raises(RecipeError, match="holds more than 1,000 values"):
        parsed(f"[{1_001 * '[],'}]", "recipe")
    with pytest.raises(RecipeError, match="holds more than 1,000 values"):
        parsed(f"[{2_000 * '[],'} and what is no YAML: {{", "recipe")


def test_a_recipe_that_is_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "mine.yaml")
    with pytest.raises(RecipeError, match="is no plain file"):
        recipe.load(tmp_path / "mine.yaml")


def test_very_many_classes_may_be_numbers(tmp_path: Path):
    names = list(range(5_000))
    path = tmp_path / "mine.yaml"
    path.write_text(f"teacher: {{source: x, class_names: {names}}}")
    assert recipe.load(path).teacher.class_names == tuple(map(str, names))


def test_of_very_many_problems_some_are_told(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"teacher: {{source: x, class_names: {5_000 * [[]]}}}")
    with pytest.raises(RecipeError, match="and 4,980 more") as refused:
        recipe.load(path)
    assert len(str(refused.value)) < 5_000


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
