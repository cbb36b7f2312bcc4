"""A run's folder that others may write in, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from pipeline.run_folder import LOCK, RunFolder
from pipeline.runners import run
from pipeline.watch import PlainScreen
from resprout.errors import ArtifactError
from resprout.recipe import Recipe


@pytest.mark.parametrize("name", [LOCK, "log.txt"])
def test_a_run_writes_through_no_link_in_its_folder(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = RunFolder(tmp_path / "out")
    folder.path.mkdir()
    (folder.path / name).symlink_to(victim)
    recipe = Recipe.model_validate({"teacher": {"source": "teacher"}})
    with pytest.raises(ArtifactError, match="no plain file"):
        run(recipe, folder, PlainScreen(Console()))
    assert victim.read_text() == "mine"
