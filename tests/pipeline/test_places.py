"""Where a command writes: what cannot be written is told in three lines, another recipe's result is not replaced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline import command
from pipeline.run_folder import LOCK, RunFolder, write_recipe
from resprout.errors import ArtifactError, ResproutError
from resprout.files import check_writable, room_for, write_atomically
from tests.pipeline.test_cli import invoke


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("teacher: {source: nowhere, arguments: {width: 8}}\nplacement: {checkpoints: null}\n")
    return path


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    """A file where a folder is wanted, which no user may write into, root included."""
    (tmp_path / "taken").write_text("x")
    return tmp_path / "taken"


@pytest.mark.parametrize(
    "words",
    [
        ("run", "RECIPE", "--runs", "TAKEN"),
        ("run", "RECIPE", "--output", "TAKEN"),
        ("run", "RECIPE", "--output", "TAKEN/deeper/still"),
        ("run", "RECIPE", "--output", "HERE/out", "--set", "placement.checkpoints=TAKEN/kept"),
        ("compile", "RECIPE", "--output", "TAKEN/pipeline.yaml"),
        ("compile", "RECIPE", "--output", "HERE"),
        ("models", "show", "TAKEN"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_place_that_cannot_be_written_is_told_in_three_lines(
    recipe: Path, taken: Path, tmp_path: Path, words: tuple[str, ...]
):
    places = {"RECIPE": recipe, "TAKEN": taken, "HERE": tmp_path}
    for name, path in places.items():
        words = tuple(word.replace(name, str(path)) for word in words)

    code, _, message = invoke(*words)

    assert code == 1
    assert [line.split(":")[0] for line in message.splitlines()] == ["error", "  why", "  now"]
    assert taken.read_text() == "x"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_system_that_refuses_to_write_is_told_with_the_place(tmp_path: Path, number: int):
    with pytest.raises(ArtifactError, match="file cannot be written") as refused, room_for(tmp_path / "file"):
        raise OSError(number, os.strerror(number), "mount")
    assert refused.value.why == f"{os.strerror(number)}: mount"


def test_a_folder_is_no_place_for_a_file(tmp_path: Path):
    with pytest.raises(ArtifactError, match="is a folder"), write_atomically(tmp_path):
        pass


def test_looking_whether_a_folder_can_be_written_leaves_nothing(tmp_path: Path):
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def finished(folder: Path, recipe: Path, *changes: str) -> RunFolder:
    """A folder as a run of the recipe leaves it, less what the run made."""
    folder.mkdir()
    for name in (LOCK, "metrics.json"):
        (folder / name).touch()
    write_recipe(command.load(recipe, changes), RunFolder(folder))
    return RunFolder(folder)


def test_the_result_of_another_recipe_is_not_replaced(recipe: Path, tmp_path: Path):
    finished(tmp_path / "out", recipe, "pruning.sparsity=0.5", "seed=3")

    code, _, message = invoke("run", recipe, "--output", tmp_path / "out")

    assert code == 1
    assert "holds the result of another recipe: seed is 3 there, 0 here, pruning.sparsity is 0.5 there" in message
    assert "now: give --output a new folder" in message


def test_a_run_goes_on_where_its_own_result_or_no_result_is(recipe: Path, tmp_path: Path):
    changes = ["teacher.source=https://user:secret@host/net.pt?key=1", "placement.num_shards=2"]
    folder = finished(tmp_path / "out", recipe, *changes)

    folder.refuse_foreign(command.load(recipe, [changes[0].replace("key=1", "key=2")]))
    with pytest.raises(ResproutError, match="another recipe"):
        folder.refuse_foreign(command.load(recipe, []))
    (folder.path / "metrics.json").unlink()
    folder.refuse_foreign(command.load(recipe, []))
